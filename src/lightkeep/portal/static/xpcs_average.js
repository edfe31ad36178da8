// The mean of several correlation results: which belong, and what they say together.
import { $, $$, Figure, axis, get, logarithmic, number, shade } from './plots.js';
import * as draw from './xpcs_figures.js';

const root = $('[data-average]');
const figures = Object.fromEntries($$('[data-plot]', root).map((each) => [each.dataset.plot, new Figure(each)]));
const bin = $('[name=bin]', root);
const model = $('[name=model]');

// Plotly reads a little HTML in what it writes; names are not HTML.
const literal = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

// The curves of one bin, run by run; those that were left out are dotted.
const runs = ({ mean, runs: all }, index) => (look) => ({
  data: all.map((run, at) => ({
    type: 'scatter', mode: 'lines', name: literal(run.name), meta: { name: run.name }, x: mean.tau, y: run.g2[index],
    line: { color: run.is_used ? shade(at, all.length, look) : look.waiting, width: run.is_used ? 1.2 : 1.8, dash: run.is_used ? 'solid' : 'dot' },
    hovertemplate: `${literal(run.name)}${run.is_used ? '' : ', left out'}<br>τ %{x:.4g}, g₂ %{y:.5f}<extra></extra>`,
  })),
  layout: { showlegend: all.length <= 8, xaxis: logarithmic(look, `delay τ / ${mean.time_unit}`), yaxis: axis(look, 'g₂') },
});

function fillTable({ runs: all }) {
  for (const run of all) {
    const row = $(`[data-run-of="${run.dataset_id}"]`);
    $('[data-chi]', row).textContent = number(run.chi_square, 2);
    const why = $('[data-why]', row);
    why.textContent = run.is_used ? 'averaged' : `left out: ${run.reason}`;
    why.className = run.is_used ? 'soft' : 'wrong';
  }
}

async function load() {
  const found = await get(`${root.dataset.average}&model=${model.value}`);
  const used = found.runs.filter((each) => each.is_used).length;
  const largest = Math.max(...found.birge.filter(Number.isFinite), 1);
  const spread = largest > 1.5 ? ` They differ up to ${number(largest, 2)} times more than their errors explain; the errors shown include it.` : '';
  $('[data-answer]', root).textContent = `${used} of ${found.runs.length} runs averaged.${found.fit.law ? ` ${draw.lawInWords(found.fit.law)}` : ''}${spread}`;
  fillTable(found);
  if (!bin.options.length) bin.append(...found.mean.bins.map((_, index) => new Option(draw.named(found.mean, index), index)));
  const show = () => figures.runs.draw(runs(found, Number(bin.value)));
  bin.onchange = show;
  figures.g2.draw(draw.g2(found.mean, found.fit, -1));
  figures.law.draw(draw.law(found.mean, found.fit, -1));
  show();
  root.dataset.ready = 'yes';
}

function failed(error) {
  $('[data-answer]', root).textContent = `No average: ${error.message}.`;
  for (const figure of Object.values(figures)) figure.none('');
}
const start = () => load().catch(failed);
model.addEventListener('change', start);
start();
