// A correlation while its frames arrive: curves that follow about every second.
import { $, $$, Figure, get } from './plots.js';
import * as draw from './xpcs_figures.js';

const EVERY_MS = 1000;
const SELDOM_MS = 5000; // for who asks for less motion
const calm = matchMedia('(prefers-reduced-motion: reduce)');

const root = $('[data-live]');
const figures = Object.fromEntries($$('[data-plot]', root).map((each) => [each.dataset.plot, new Figure(each)]));
const pause = $('[data-pause]', root);
const says = $('[data-answer]', root);
let shown = -1;
let isPaused = false;

const turned = (table) => table[0]?.map((_, index) => table.map((row) => row[index])) ?? [];

function curvesOf(outputs) {
  const g2 = turned(outputs.g2);
  const none = g2.map(() => null);
  return {
    ...outputs, g2, g2_err: turned(outputs.g2_err), bins: g2.map((_, index) => index + 1), q: outputs.q.length ? outputs.q : none, phi: none,
    time_unit: outputs.tau_unit, time: outputs.intensity_frames, saxs_q: outputs.static_q, saxs_1d_segments: [],
  };
}

function pictureOf(values) {
  const lit = values.flat().filter((each) => each > 0).sort((a, b) => a - b);
  const low = lit[Math.floor(0.01 * lit.length)] ?? 0.1;
  const high = Math.max(lit[Math.floor(0.997 * (lit.length - 1))] ?? 1, low * 1.0001);
  return { values: values.map((row) => row.map((each) => each ?? NaN)), bins: [], factor: 1, rows: values.length, columns: values[0].length, low, high, beam: null };
}

function show({ outputs }) {
  const curves = curvesOf(outputs);
  figures.g2.draw(draw.g2(curves, null, -1));
  figures.saxs.draw(draw.saxs(curves));
  figures.intensity.draw(draw.intensity({ ...curves, time_unit: 'frames' }));
  if (outputs.saxs_2d.length) figures.image.draw(draw.image(pictureOf(outputs.saxs_2d), 0, { showBins: false, isCoarse: true }));
  says.textContent = outputs.flags.join(' · ');
}

// The result is there before the raw data are stored and the run is over; then the page says so itself.
function offer(found, isOver) {
  const link = $('[data-result]', root);
  link.href = `/datasets/${found.result_id}`;
  link.hidden = isOver || !found.result_id;
  pause.hidden = isOver || Boolean(found.result_id);
  root.hidden = isOver && shown < 0;
}

async function follow() {
  const found = await get(root.dataset.live);
  const isOver = !['queued', 'running'].includes(found.state);
  offer(found, isOver);
  if (found.outputs && found.frames !== shown && !isPaused) {
    shown = found.frames;
    show(found);
    root.dataset.frames = shown;
  }
  if (!isOver) setTimeout(again, calm.matches ? SELDOM_MS : EVERY_MS);
}

function again() {
  if (document.hidden) {
    document.addEventListener('visibilitychange', again, { once: true });
    return;
  }
  follow().catch((error) => {
    says.textContent = `No news: ${error.message}. Trying again.`;
    setTimeout(again, SELDOM_MS);
  });
}

pause.addEventListener('click', () => {
  isPaused = !isPaused;
  pause.textContent = isPaused ? 'Follow again' : 'Hold the curves';
});
again();
