// Storage over time: what lay where, and when which store is full.
import { $, $$, Figure, axis, logarithmic, shade } from './plots.js';

// Plotly reads a little HTML in what it writes; names are not HTML.
const literal = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];

// The unit that leaves the largest of some sizes between 1 and 1000.
function unitOf(sizes) {
  const largest = Math.max(1, ...sizes);
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log10(largest) / 3));
  return { name: UNITS[power], of: (size) => size / 1000 ** power };
}

const dates = (look) => axis(look, '', { type: 'date', hoverformat: '%Y-%m-%d', showgrid: false });

// What lay on stores, the largest below.
const history = (series) => (look) => {
  const totals = series[0].days.map((_, at) => series.reduce((sum, each) => sum + each.sizes[at], 0));
  const unit = unitOf(totals);
  return {
    data: series.map((each, at) => ({
      type: 'scatter', mode: 'lines', stackgroup: 'all', name: literal(each.name), meta: { name: each.name },
      x: each.days, y: each.sizes.map(unit.of), line: { shape: 'hv', width: 1, color: shade(at, series.length, look) },
      hovertemplate: `${literal(each.name)}<br>%{x}: %{y:.3~g} ${unit.name}<extra></extra>`,
    })),
    layout: { showlegend: series.length > 1, xaxis: dates(look), yaxis: axis(look, `on stores / ${unit.name}`, { rangemode: 'tozero' }) },
  };
};

// How one store fills under each scenario, its capacity and its watermarks.
const course = (paths, scale) => (look) => {
  const unit = unitOf(paths.flatMap((each) => [...each.used, ...each.capacity]));
  const colour = (at) => (at === 0 ? look.accent : shade(at, paths.length, look));
  const lines = paths.map((each, at) => ({
    type: 'scatter', mode: 'lines', name: literal(each.name), meta: { name: each.name }, x: each.days, y: each.used.map(unit.of),
    line: { color: colour(at), width: at === 0 ? 2.2 : 1.5, dash: at === 0 ? 'solid' : ['dash', 'dot', 'dashdot', 'longdash'][(at - 1) % 4] },
    hovertemplate: `${literal(each.name)}<br>%{x}: %{y:.3~g} ${unit.name}<extra></extra>`,
  }));
  const rooms = [];
  for (const [at, each] of paths.entries()) {
    const isSame = at > 0 && JSON.stringify(each.capacity) === JSON.stringify(paths[0].capacity);
    if (isSame || !Math.max(...each.capacity)) continue;
    const room = (part, name, dash, color) => ({
      type: 'scatter', mode: 'lines', name, x: each.days, y: each.capacity.map((size) => unit.of(size) * part), showlegend: false,
      line: { color, width: 1.2, dash, shape: 'hv' }, hovertemplate: `${name}${at ? `, ${literal(each.name)}` : ''}<br>%{y:.3~g} ${unit.name}<extra></extra>`,
    });
    rooms.push(room(1, 'capacity', 'solid', look.bad), room(each.high, 'high watermark', 'dot', look.waiting));
    if (at === 0) rooms.push(room(each.low, 'low watermark', 'dot', look.faint));
  }
  const full = paths.flatMap((each, at) => (each.full_on ? [{ at, on: each.full_on, room: each.capacity[0] }] : []));
  const marks = {
    type: 'scatter', mode: 'markers', name: 'full', showlegend: false, meta: { hidden: true }, x: full.map(({ on }) => on),
    y: full.map(({ room }) => unit.of(room)), marker: { color: full.map(({ at }) => colour(at)), size: 9, symbol: 'diamond' },
    hovertemplate: 'full on %{x}<extra></extra>',
  };
  const kind = scale === 'log' ? logarithmic : axis;
  return {
    data: [...rooms, ...lines, marks],
    layout: { showlegend: true, xaxis: dates(look), yaxis: kind(look, `on it / ${unit.name}`, scale === 'log' ? {} : { rangemode: 'tozero' }) },
  };
};

const past = $('[data-history]');
if (past) new Figure($('[data-plot]', past)).draw(history(JSON.parse(past.dataset.history)));

for (const place of $$('[data-store]')) {
  const figure = new Figure($('[data-plot]', place));
  const paths = JSON.parse(place.dataset.store);
  const scale = $('[data-scale]', place);
  const draw = () => figure.draw(course(paths, scale.value));
  scale.addEventListener('change', draw);
  draw();
  const full = paths[0].full_on;
  figure.says(full ? `Full on ${full}, as it is.` : 'Not full in this time, as it is.');
}
