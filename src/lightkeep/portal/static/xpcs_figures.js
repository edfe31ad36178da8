// What the figures of a correlation result show. Each function takes values and a look, and gives data and layout.
import { axis, logarithmic, number, shade, within } from './plots.js';

const DIFFUSION = 2;
const COUNTS = 'counts / pixel / frame';
export const MODELS = { single: 'single exponential', stretched: 'stretched exponential', double: 'double exponential' };

// Tick labels of a logarithmic axis that spans few powers of ten: numbers, as a lone 10⁻¹ says little.
function steps(values) {
  const known = values.flat().filter((each) => each > 0);
  const [low, high] = [Math.log10(Math.min(...known)), Math.log10(Math.max(...known))];
  if (!known.length || high - low > 2.2) return {};
  const leads = high - low > 1.1 ? [1, 2, 5] : [1, 2, 3, 5, 7];
  const tickvals = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) tickvals.push(...leads.map((lead) => lead * 10 ** power));
  return { tickmode: 'array', tickvals, ticktext: tickvals.map((each) => number(each, 1)), minor: { ticks: '' } };
}

// A bin in words: its number, q, and azimuth where there are several of the same q.
export function named({ bins, q, phi }, index) {
  const parts = [`bin ${bins[index]}`];
  if (Number.isFinite(q[index] ?? NaN)) {
    parts.push(`q ${number(q[index])} Å⁻¹`);
    const several = q.some((each, other) => other !== index && Math.abs(each - q[index]) <= 1e-5 * q[index]);
    if (several && Number.isFinite(phi[index] ?? NaN)) parts.push(`φ ${number(phi[index])}°`);
  }
  return parts.join(', ');
}

// What the power law says, beside diffusion.
export function lawInWords({ exponent, exponent_err: error }) {
  const away = Math.abs(exponent - DIFFUSION) / error;
  const verdict = away <= 2 ? 'as diffusion has it (n = 2)' : `diffusion (n = 2) is ${number(away, 2)} standard errors away`;
  return `τ ∝ q⁻ⁿ with n = ${within(exponent, error)}, ${verdict}.`;
}

function curve(curves, index, look, { faded = false, axes = {} } = {}) {
  const colour = shade(index, curves.g2.length, look);
  const error = curves.g2_err[index]?.map((each) => each ?? 0);
  return {
    type: 'scatter', mode: 'markers', x: curves.tau, y: curves.g2[index], name: named(curves, index), opacity: faded ? 0.18 : 1,
    marker: { color: colour, size: 5 }, meta: { index },
    error_y: error && { type: 'data', array: error, color: colour, thickness: 1, width: 0 },
    hovertemplate: `<b>${named(curves, index)}</b><br>τ %{x:.4g} ${curves.time_unit}, g₂ %{y:.5f}<extra></extra>`, ...axes,
  };
}

function fitted(curves, fit, index, look, { faded = false, axes = {} } = {}) {
  return {
    type: 'scatter', mode: 'lines', x: fit.tau, y: fit.curve[index], opacity: faded ? 0.18 : 1, hoverinfo: 'skip',
    name: `${named(curves, index)}, ${MODELS[fit.model]}${fit.is_good[index] ? '' : ', not used'}`, meta: { index },
    line: { color: shade(index, curves.g2.length, look), width: 1.4, dash: fit.is_good[index] ? 'solid' : 'dot' }, ...axes,
  };
}

// g2 of all bins in one frame; the chosen one stands out. Delay 0 holds shot noise and has no place on the axis.
export const g2 = (curves, fit, chosen) => (look) => {
  const data = [];
  const order = curves.g2.map((_, index) => index).sort((a, b) => (a === chosen) - (b === chosen));
  for (const index of order) {
    const faded = chosen >= 0 && index !== chosen;
    data.push(curve(curves, index, look, { faded }));
    if (fit) data.push(fitted(curves, fit, index, look, { faded }));
  }
  return { data, layout: { xaxis: logarithmic(look, `delay τ / ${curves.time_unit}`), yaxis: axis(look, 'g₂') } };
};

// The same as small multiples.
export const g2Grid = (curves, fit, columns) => (look) => {
  const data = [];
  const count = curves.g2.length;
  const lines = Math.ceil(count / columns);
  const layout = { annotations: [], margin: { l: 44, r: 8, t: 22, b: 40 } };
  for (let index = 0; index < count; index += 1) {
    const [row, column] = [Math.floor(index / columns), index % columns];
    const key = index ? index + 1 : '';
    const axes = { xaxis: `x${key}`, yaxis: `y${key}` };
    data.push(curve(curves, index, look, { axes }));
    if (fit) data.push(fitted(curves, fit, index, look, { axes }));
    const [width, height] = [1 / columns, 1 / lines];
    const isLow = index + columns >= count;
    const spot = { x: [column * width + 0.16 * width, (column + 1) * width - 0.02 * width], y: [1 - (row + 1) * height + 0.2 * height, 1 - row * height - 0.08 * height] };
    layout[`xaxis${key}`] = logarithmic(look, isLow ? `τ / ${curves.time_unit}` : '', { domain: spot.x, anchor: `y${key}`, automargin: false });
    layout[`yaxis${key}`] = axis(look, '', { domain: spot.y, anchor: `x${key}`, nticks: 4, automargin: false });
    const isBad = fit && !fit.is_good[index];
    layout.annotations.push({
      text: named(curves, index).replace(/^bin \d+, /, '') + (isBad ? ' · fit not used' : ''), xref: 'paper', yref: 'paper', x: spot.x[0], y: spot.y[1],
      xanchor: 'left', yanchor: 'bottom', showarrow: false, font: { size: 11, color: isBad ? look.waiting : look.soft },
    });
  }
  return { data, layout };
};

// Decay times against q, the power law through them, and diffusion through their middle.
export const law = (curves, fit, chosen) => (look) => {
  const data = [];
  const sets = [[true, 'used', 'circle'], [false, 'not used', 'circle-open']];
  for (const [isGood, name, symbol] of sets) {
    const kept = curves.bins.map((_, index) => index).filter((index) => fit.is_good[index] === isGood && curves.q[index] > 0 && fit.values.tau_c[index] > 0);
    data.push({
      type: 'scatter', mode: 'markers', name, x: kept.map((each) => curves.q[each]), y: kept.map((each) => fit.values.tau_c[each]), customdata: kept,
      marker: { symbol, color: kept.map((each) => (isGood ? shade(each, curves.bins.length, look) : look.faint)), size: kept.map((each) => (each === chosen ? 13 : 8)) },
      error_y: { type: 'data', array: kept.map((each) => (isGood ? fit.errors.tau_c[each] : 0)), color: look.faint, thickness: 1.2, width: 0 },
      text: kept.map((each) => named(curves, each)), hovertemplate: '<b>%{text}</b><br>τ %{y:.4g}<extra></extra>',
    });
  }
  if (fit.law) {
    const { q, tau_c: times, exponent } = fit.law;
    const middle = Math.sqrt(q[0] * q.at(-1));
    const there = fit.law.prefactor * middle ** -exponent;
    const line = { type: 'scatter', mode: 'lines', hoverinfo: 'skip', showlegend: true, x: q };
    data.push({ ...line, y: q.map((each) => there * (each / middle) ** -DIFFUSION), name: 'diffusion, τ ∝ q⁻²', line: { color: look.faint, width: 1.2, dash: 'dash' } });
    data.push({ ...line, y: times, name: 'power law', line: { color: look.ink, width: 1.6 } });
  }
  return {
    data,
    layout: {
      showlegend: Boolean(fit.law), xaxis: logarithmic(look, 'q / Å⁻¹', steps(data.map((each) => each.x))),
      yaxis: logarithmic(look, `decay time τ / ${curves.time_unit}`, steps(data.map((each) => each.y))), margin: { l: 64, r: 12, t: 10, b: 44 },
    },
  };
};

// The static curve; its parts in time, which lie on each other while sample and beam are stable.
export const saxs = (curves) => (look) => {
  const hasQ = curves.saxs_q.some((each) => each > 0);
  const x = hasQ ? curves.saxs_q : curves.saxs_1d.map((_, index) => index + 1);
  const parts = curves.saxs_1d_segments.map((y, index, all) => ({
    type: 'scatter', mode: 'lines', x, y, name: `part ${index + 1} of ${all.length}`, line: { color: shade(index, all.length, look), width: 1 },
    hovertemplate: `part ${index + 1} of ${all.length}<br>%{x:.4g}, %{y:.4g}<extra></extra>`,
  }));
  const whole = { type: 'scatter', mode: 'lines+markers', x, y: curves.saxs_1d, name: 'whole run', line: { color: look.ink, width: 1.6 }, marker: { size: 4 }, hovertemplate: 'whole run<br>q %{x:.4g}, %{y:.4g}<extra></extra>' };
  return {
    data: [...parts, whole],
    layout: {
      xaxis: hasQ ? logarithmic(look, 'q / Å⁻¹', steps(x)) : axis(look, 'static partition'),
      yaxis: logarithmic(look, COUNTS, steps(curves.saxs_1d)), margin: { l: 64, r: 12, t: 10, b: 44 },
    },
  };
};

export const intensity = (curves) => (look) => ({
  data: [{ type: 'scatter', mode: 'lines', name: 'intensity', x: curves.time, y: curves.intensity, line: { color: look.accent, width: 1 }, hovertemplate: '%{x:.5g}: %{y:.5g}<extra></extra>' }],
  layout: { xaxis: axis(look, curves.time_unit === 's' ? 'time / s' : 'frame'), yaxis: axis(look, COUNTS), margin: { l: 64, r: 12, t: 10, b: 44 } },
});

export const spectrum = (curves) => (look) => ({
  data: [{ type: 'scatter', mode: 'lines', name: 'amplitude', x: curves.frequency, y: curves.amplitude.map((each) => 100 * each), line: { color: look.accent, width: 1 }, hovertemplate: '%{x:.4g}: %{y:.3g} %<extra></extra>' }],
  layout: { xaxis: axis(look, curves.time_unit === 's' ? 'frequency / Hz' : 'frequency / frame⁻¹'), yaxis: axis(look, 'amplitude / % of mean', { rangemode: 'tozero' }), margin: { l: 64, r: 12, t: 10, b: 44 } },
});

function scale(picture) {
  const [low, high] = [Math.log10(picture.low), Math.log10(picture.high)];
  const ticks = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    for (const lead of high - low > 2.5 ? [1] : [1, 2, 5]) {
      const at = power + Math.log10(lead);
      if (at >= low && at <= high) ticks.push(at);
    }
  }
  return { low, high, ticks, text: ticks.map((each) => number(10 ** each, 1)) };
}

const bar = (look, title, more = {}) => ({
  title: { text: title, side: 'right', font: { size: 11, color: look.soft } }, thickness: 10, outlinewidth: 0, ticklen: 3, ticks: 'outside',
  tickcolor: look.strong, tickfont: { color: look.faint, size: 11 }, xpad: 4, ...more,
});

// Edges between bins, and a veil over all but the chosen one. Both are for the eye: not part of what is saved as a table.
function overlays(picture, chosen, showBins, spot) {
  const found = [];
  const veil = { type: 'heatmap', hoverinfo: 'skip', showscale: false, meta: { hidden: true }, ...spot };
  if (showBins) {
    const edge = picture.bins.map((row, j) => Array.from(row, (each, i) => (each && (each !== (row[i + 1] ?? each) || each !== (picture.bins[j + 1]?.[i] ?? each)) ? 1 : null)));
    found.push({ ...veil, z: edge, colorscale: [[0, '#fff'], [1, '#fff']], opacity: 0.45 });
  }
  if (chosen) {
    const away = picture.bins.map((row) => Array.from(row, (each) => (each === chosen ? null : 1)));
    found.push({ ...veil, z: away, colorscale: [[0, '#000'], [1, '#000']], opacity: 0.55 });
  }
  return found;
}

export const image = (picture, chosen, { showBins = true, isCoarse = false } = {}) => (look) => {
  const { low, high, ticks, text } = scale(picture);
  const spot = { x0: (picture.factor - 1) / 2, dx: picture.factor, y0: (picture.factor - 1) / 2, dy: picture.factor };
  const z = picture.values.map((row) => Array.from(row, (each) => (Number.isNaN(each) ? null : Math.log10(Math.max(each, picture.low / 10)))));
  const data = [{
    type: 'heatmap', z, ...spot, zmin: low, zmax: high, colorscale: 'Viridis', hoverinfo: 'none', meta: { name: COUNTS, value: (each) => 10 ** each },
    colorbar: bar(look, COUNTS, { tickvals: ticks, ticktext: text }),
  }, ...overlays(picture, chosen, showBins, spot)];
  if (picture.beam) {
    data.push({ type: 'scatter', mode: 'markers', x: [picture.beam[0]], y: [picture.beam[1]], name: 'direct beam', hoverinfo: 'skip', meta: { hidden: true }, marker: { symbol: 'cross-thin', size: 12, line: { color: look.ink, width: 1.5 } } });
  }
  const square = { showgrid: false, zeroline: false, constrain: 'domain', showticklabels: !isCoarse };
  const unit = isCoarse ? '' : ' / pixel';
  return {
    data,
    layout: {
      xaxis: axis(look, `column${unit}`, { ...square, range: [-0.5, picture.columns - 0.5] }),
      yaxis: axis(look, `row${unit}`, { ...square, range: [picture.rows - 0.5, -0.5], scaleanchor: 'x' }),
      plot_bgcolor: look.sunk, margin: { l: 48, r: 8, t: 10, b: 44 },
    },
  };
};

const isSeconds = (curves) => (curves.time_unit === 's' ? 's' : 'frames');

// The two-time correlation with lines of equal age across its diagonal.
export const twoTime = (map, curves, ages) => (look) => {
  const end = map.frames * map.step;
  const spot = { x0: (map.factor - 1) / 2 * map.step, dx: map.factor * map.step, y0: (map.factor - 1) / 2 * map.step, dy: map.factor * map.step };
  const data = [{
    type: 'heatmap', z: map.values, ...spot, zmin: map.low, zmax: map.high, colorscale: 'Viridis', meta: { name: 'C' }, colorbar: bar(look, 'C(t₁, t₂)'),
    hovertemplate: 't₁ %{x:.4g}, t₂ %{y:.4g}: %{z:.4f}<extra></extra>',
  }];
  ages.forEach((age) => {
    const reach = Math.min(age, end - age);
    data.push({ type: 'scatter', mode: 'lines', hoverinfo: 'skip', meta: { hidden: true }, x: [age - reach, age + reach], y: [age + reach, age - reach], line: { color: '#fff', width: 1.6 } });
  });
  const square = { showgrid: false, zeroline: false, constrain: 'domain', range: [0, end] };
  return {
    data,
    layout: { xaxis: axis(look, `t₁ / ${isSeconds(curves)}`, square), yaxis: axis(look, `t₂ / ${isSeconds(curves)}`, { ...square, scaleanchor: 'x' }), plot_bgcolor: look.sunk, margin: { l: 52, r: 8, t: 10, b: 44 } },
  };
};

// g2 of the whole run, and of its ages or its parts.
export const cut = (map, curves, lines) => (look) => {
  const whole = { type: 'scatter', mode: 'lines', x: map.tau, y: map.g2, name: 'whole run', line: { color: look.ink, width: 1.6 }, hovertemplate: 'whole run<br>τ %{x:.4g}, g₂ %{y:.4f}<extra></extra>' };
  const parts = lines.map(({ name, tau, g2: y }, index) => ({
    type: 'scatter', mode: 'lines', x: tau, y, name, line: { color: shade(index, lines.length, look), width: 1.2 }, hovertemplate: `${name}<br>τ %{x:.4g}, g₂ %{y:.4f}<extra></extra>`,
  }));
  return { data: [...parts, whole], layout: { showlegend: true, xaxis: logarithmic(look, `delay τ / ${isSeconds(curves)}`), yaxis: axis(look, 'g₂') } };
};
