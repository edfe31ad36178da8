// How good a reconstruction is by the number of projections: while they arrive, and of a result.
import { $, $$, Figure, axis, get, number } from './plots.js';

const EVERY_MS = 1000;
const SELDOM_MS = 5000;
const calm = matchMedia('(prefers-reduced-motion: reduce)');

// `found`: x, y, wanted quality or null, and the number at which the scan was stopped or null.
const quality = ({ x, y, wanted, stopped, planned }) => (look) => ({
  data: [{
    type: 'scatter', mode: 'lines+markers', name: 'quality', x, y, line: { color: look.accent, width: 1.5 },
    marker: { size: 5, color: look.accent }, hovertemplate: '%{x} projections: %{y:.3f}<extra></extra>',
  }],
  layout: {
    xaxis: axis(look, 'projections', { rangemode: 'tozero', ...(planned ? { range: [0, planned] } : {}) }),
    yaxis: axis(look, 'agreement of two halves', { range: [0, 1.02] }),
    margin: { l: 64, r: 12, t: 22, b: 44 },
    shapes: [
      ...(wanted ? [{ type: 'line', xref: 'paper', x0: 0, x1: 1, y0: wanted, y1: wanted, line: { color: look.faint, width: 1, dash: 'dot' } }] : []),
      ...(stopped ? [{ type: 'line', yref: 'paper', x0: stopped, x1: stopped, y0: 0, y1: 1, line: { color: look.accent, width: 2 } }] : []),
    ],
    annotations: [
      ...(wanted ? [{ xref: 'paper', x: 1, y: wanted, yanchor: 'bottom', xanchor: 'right', text: 'wanted', showarrow: false, font: { color: look.faint } }] : []),
      ...(stopped ? [{ yref: 'paper', x: stopped, y: 1, yanchor: 'bottom', text: `stop at ${stopped}`, showarrow: false, font: { color: look.soft } }] : []),
    ],
  },
});

// ---- while it is measured
function follow(root) {
  const figure = new Figure($('[data-plot=quality]', root));
  const says = $('[data-answer]', root);
  let shown = -1;
  function show({ outputs, frames }) {
    const { checks, stopped, verdict, planned } = outputs;
    figure.draw(quality({
      x: checks.map((each) => each[0]), y: checks.map((each) => each[1]), wanted: outputs.wanted,
      stopped: stopped?.used ?? null, planned,
    }));
    for (const [name, source] of Object.entries(outputs.views)) {
      $(`img[data-view=${name}]`, root).src = source;
      $('.views', root).hidden = false;
    }
    const told = stopped ?? verdict;
    says.textContent = stopped
      ? `Enough after ${stopped.used} of ${stopped.planned} projections: ${stopped.reason}.`
      : `${outputs.projections} projections so far${told ? `: ${told.reason}` : ''}.`;
    if (told) facts(outputs, told);
    root.dataset.frames = frames;
  }
  function facts(outputs, told) {
    const [, now, change] = outputs.checks.find(([count]) => count === told.used) ?? outputs.checks.at(-1);
    const values = {
      used: `${outputs.stopped ? told.used : outputs.projections} of ${outputs.planned ?? 'unknown'}`,
      'quality-now': now.toFixed(3), wanted: number(outputs.wanted), predicted: outputs.planned ? told.predicted.toFixed(3) : '–',
      change: change === null ? '–' : `${number(100 * change, 2)} %`, centre: outputs.center.toFixed(2),
    };
    for (const [name, value] of Object.entries(values)) $(`[data-${name}]`, root).textContent = value;
    $('.facts', root).hidden = false;
  }
  async function look() {
    const found = await get(root.dataset.tomographyLive);
    const isOver = !['queued', 'running'].includes(found.state);
    if (found.outputs && found.frames !== shown) {
      shown = found.frames;
      show(found);
    }
    if (!isOver) setTimeout(again, calm.matches ? SELDOM_MS : EVERY_MS);
  }
  function again() {
    if (document.hidden) {
      document.addEventListener('visibilitychange', again, { once: true });
      return;
    }
    look().catch((error) => {
      says.textContent = `No news: ${error.message}. Trying again.`;
      setTimeout(again, SELDOM_MS);
    });
  }
  again();
}

// ---- of a result
async function result(root) {
  const figure = new Figure($('[data-plot=quality]', root));
  const read = (path) => get(`${root.dataset.quality}?path=${encodeURIComponent(path)}&format=json`);
  try {
    const [y, x] = await Promise.all([read('/entry/quality/data'), read('/entry/quality/projections')]);
    const [, stopped, planned] = (root.dataset.says.match(/stopped at (\d+) of (\d+)/) ?? []).map(Number);
    figure.draw(quality({ x, y, wanted: null, stopped: stopped ?? null, planned: planned ?? null }));
    figure.says(root.dataset.says);
  } catch (error) {
    figure.none(`No curve: ${error.message}`);
  }
}

for (const each of $$('[data-tomography-live]')) follow(each);
for (const each of $$('[data-quality]')) result(each);
