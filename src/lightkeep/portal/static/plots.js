// Figures on a page: drawn by Plotly from tokens, light or dark; enlarged, and saved as PNG, SVG and CSV.
// Plotly is a script of its own, loaded before this module, only by pages that plot.
export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// The policy of our pages takes no style attributes; a style that is set property by property is allowed.
const { setAttribute } = Element.prototype;
SVGElement.prototype.setAttribute = function set(name, value) {
  if (name === 'style') this.style.cssText = value;
  else setAttribute.call(this, name, value);
};

const VIRIDIS = ['#440154', '#482878', '#3e4989', '#31688e', '#26828e', '#1f9e89', '#35b779', '#6ece58', '#b5de2b', '#fde725'];
// What is saved is for paper, whatever the screen looks like.
const PRINT = {
  paper: '#ffffff', raised: '#ffffff', sunk: '#f2f0ec', rule: '#dddddd', strong: '#999999', ink: '#000000', soft: '#333333',
  faint: '#666666', accent: '#4b3fb5', waiting: '#855600', bad: '#b0281f', dark: false,
};

function tokens() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    paper: value('paper'), raised: value('raised'), sunk: value('sunk'), rule: value('rule'), strong: value('rule-strong'),
    ink: value('ink'), soft: value('ink-2'), faint: value('ink-3'), accent: value('accent'), waiting: value('waiting'),
    bad: value('bad'), dark: style.colorScheme === 'dark',
  };
}

const hex = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));

// Colour of item `index` of `count`: viridis without the end that the paper swallows.
export function shade(index, count, look) {
  const part = count > 1 ? index / (count - 1) : 0.3;
  const at = (look.dark ? 0.28 + 0.72 * part : 0.82 * part) * (VIRIDIS.length - 1);
  const low = Math.min(VIRIDIS.length - 2, Math.floor(at));
  const [a, b] = [hex(VIRIDIS[low]), hex(VIRIDIS[low + 1])];
  return `rgb(${a.map((each, k) => Math.round(each + (b[k] - each) * (at - low))).join(',')})`;
}

// ---- words
const SUPER = { '-': '⁻', 0: '⁰', 1: '¹', 2: '²', 3: '³', 4: '⁴', 5: '⁵', 6: '⁶', 7: '⁷', 8: '⁸', 9: '⁹' };
export const raised = (value) => [...String(value)].map((each) => SUPER[each] ?? each).join('');
const printed = (text) => {
  const [digits, power] = text.replace(/e\+?/, 'e').split('e');
  return digits.replace('-', '−') + (power ? ` × 10${raised(power)}` : '');
};

// A number with `digits` significant digits.
export function number(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return printed(value.toExponential(digits - 1));
  return printed(String(Number(value.toPrecision(digits))));
}

// A value and its error, to the place where the error begins.
export function within(value, error) {
  if (!(error > 0) || !Number.isFinite(error)) return number(value);
  const size = Math.floor(Math.log10(Math.max(Math.abs(value), error)));
  const power = size < -3 || size > 4 ? size : 0;
  const [v, e] = [value / 10 ** power, error / 10 ** power];
  const begins = Math.floor(Math.log10(e));
  const places = Math.min(6, Math.max(0, -begins + (e < 2 * 10 ** begins ? 1 : 0)));
  const both = `${printed(v.toFixed(places))} ± ${e.toFixed(places)}`;
  return power ? `(${both}) × 10${raised(power)}` : both;
}

const PREFIXES = [[1, 's'], [1e-3, 'ms'], [1e-6, 'µs'], [1e-9, 'ns']];
export function time(value, unit) {
  if (unit !== 's' || !(value > 0)) return `${number(value)} ${unit}`;
  const [size, name] = PREFIXES.find(([each]) => value >= 0.9995 * each) ?? PREFIXES[3];
  return `${number(value / size)} ${name}`;
}

// ---- data
const TYPES = { f4: Float32Array, u2: Uint16Array };
// Rows of an array that came as base64.
export function rows({ dtype, shape, bdata }) {
  const bytes = Uint8Array.from(atob(bdata), (each) => each.charCodeAt(0));
  const flat = new TYPES[dtype](bytes.buffer);
  return Array.from({ length: shape[0] }, (_, row) => flat.subarray(row * shape[1], (row + 1) * shape[1]));
}

export async function get(address) {
  const answer = await fetch(address, { headers: { Accept: 'application/json' } });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail ?? found.title ?? answer.statusText);
  return found;
}

// ---- one figure
const FONT = '"Plex Sans", system-ui, sans-serif';
const figures = new Set();

export const axis = (look, title, more = {}) => ({
  title: { text: title, font: { color: look.soft, size: 12 }, standoff: 8 },
  color: look.faint, gridcolor: look.rule, zerolinecolor: look.rule, linecolor: look.strong, tickcolor: look.strong,
  ticks: 'outside', ticklen: 4, automargin: true, exponentformat: 'power', ...more,
});
// Tick labels of a logarithmic axis: powers of ten, and 2 and 5 between where there are few.
export const logarithmic = (look, title, more = {}) => axis(look, title, { type: 'log', dtick: 1, minor: { dtick: 'L1', ticks: 'outside', ticklen: 2, tickcolor: look.strong, tickmode: 'auto' }, ...more });

function dressed({ data, layout }, look, { large = false } = {}) {
  return {
    data,
    layout: {
      paper_bgcolor: look.paper, plot_bgcolor: look.paper, showlegend: false, hovermode: 'closest', autosize: true,
      margin: { l: 56, r: 12, t: 10, b: 44 }, font: { family: FONT, size: large ? 14 : 11, color: look.faint },
      hoverlabel: { bgcolor: look.raised, bordercolor: look.strong, font: { family: FONT, size: 12, color: look.ink } },
      legend: { orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom', font: { color: look.soft }, itemclick: false, itemdoubleclick: false },
      dragmode: matchMedia('(pointer: coarse)').matches && !large ? false : 'zoom',
      ...layout,
    },
  };
}
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: 'reset', showTips: false };

export class Figure {
  // `make(look)` gives {data, layout}; it is asked again when the page turns dark.
  constructor(element) {
    this.element = element;
    this.canvas = $('.canvas', element);
    this.title = $('h2', element).textContent;
    this.make = null;
    this.clicked = null;
    this.hovered = null;
    this.failed = '';
    figures.add(this);
    element.addEventListener('click', (event) => {
      const button = event.target.closest('[data-save], [data-enlarge]');
      if (!button || !this.make) return;
      if (button.matches('[data-enlarge]')) this.enlarge();
      else save(this, button.dataset.save);
      button.closest('details')?.removeAttribute('open');
    });
  }

  draw(make) {
    this.make = make;
    const look = tokens();
    const { data, layout } = dressed(make(look), look);
    const isFirst = !this.canvas.data;
    $('.wait', this.canvas)?.remove();
    Plotly.react(this.canvas, data, layout, CONFIG);
    this.element.dataset.ready = 'yes';
    if (isFirst) this.listen(this.canvas);
  }

  listen(canvas) {
    canvas.on('plotly_click', (event) => this.clicked?.(event.points[0]));
    canvas.on('plotly_hover', (event) => this.hovered?.(event.points[0]));
    canvas.on('plotly_unhover', () => this.hovered?.(null));
  }

  says(text) {
    const place = $('.says', this.element);
    if (place && place.textContent !== text) place.textContent = text;
  }

  // Why there is nothing to see.
  none(text) {
    this.make = null;
    if (this.canvas.data) Plotly.purge(this.canvas);
    this.canvas.replaceChildren(Object.assign(document.createElement('p'), { className: 'wait soft', textContent: text }));
    this.element.dataset.ready = 'none';
    this.says('');
  }

  enlarge() {
    const dialog = document.createElement('dialog');
    dialog.className = 'plot-dialog';
    dialog.setAttribute('aria-label', this.title);
    const close = Object.assign(document.createElement('button'), { type: 'button', className: 'button small', textContent: 'Close' });
    const canvas = Object.assign(document.createElement('div'), { className: 'canvas' });
    const head = Object.assign(document.createElement('div'), { className: 'plot-head' });
    head.append(Object.assign(document.createElement('h2'), { textContent: this.title }), close);
    dialog.append(head, canvas);
    document.body.append(dialog);
    close.addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => {
      Plotly.purge(canvas);
      dialog.remove();
    });
    dialog.showModal();
    const look = tokens();
    const { data, layout } = dressed(this.make(look), look, { large: true });
    Plotly.newPlot(canvas, data, layout, CONFIG);
    this.listen(canvas);
  }
}

// ---- saving
function hand(name, type, content) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const plain = (title, fallback) => (title ?? fallback).replace(/<[^>]*>/g, '');

// What is drawn as a table: one row per point, with the unit in the head of its column.
export function table({ data, layout }) {
  const lines = [];
  const maps = data.filter((each) => each.type === 'heatmap' && !each.meta?.hidden);
  const head = (key, fallback) => quoted(plain(layout[key]?.title?.text, fallback));
  if (maps.length) {
    lines.push([head('yaxis', 'y'), head('xaxis', 'x'), quoted(maps[0].meta?.name ?? 'value')].join(','));
    for (const { z, x0, dx, y0, dy, meta } of maps) {
      const value = meta?.value ?? ((each) => each);
      z.forEach((row, j) => row.forEach((each, i) => {
        if (Number.isFinite(each)) lines.push(`${y0 + j * dy},${x0 + i * dx},${value(each)}`);
      }));
    }
  } else {
    lines.push(['series', head('xaxis', 'x'), head('yaxis', 'y'), 'error'].join(','));
    for (const { name, x, y, error_y: error, meta } of data.filter((each) => !each.meta?.hidden)) {
      for (let i = 0; i < x.length; i += 1) {
        if (y[i] !== null) lines.push([quoted(meta?.name ?? name ?? ''), x[i], y[i], error?.array?.[i] ?? ''].join(','));
      }
    }
  }
  return `${lines.join('\n')}\n`;
}

async function save(figure, kind) {
  const name = `${document.body.dataset.subject ?? $('h1')?.textContent ?? 'figure'} ${figure.title}`
    .trim().replace(/[^\p{L}\p{N}.-]+/gu, '-').toLowerCase();
  const spec = figure.make(PRINT);
  if (kind === 'csv') {
    hand(`${name}.csv`, 'text/csv', table(spec));
    return;
  }
  const { width, height } = figure.canvas.getBoundingClientRect();
  const size = { width: Math.max(640, Math.round(width)), height: Math.max(420, Math.round(height)) };
  const svg = await Plotly.toImage(dressed(spec, PRINT), { format: 'svg', imageDataOnly: true, ...size });
  if (kind === 'svg') {
    hand(`${name}.svg`, 'image/svg+xml', svg);
    return;
  }
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = Object.assign(document.createElement('canvas'), { width: 2 * size.width, height: 2 * size.height });
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => hand(`${name}.png`, 'image/png', blob));
}

// ---- light and dark
function again() {
  for (const figure of figures) if (figure.make) figure.draw(figure.make);
}
new MutationObserver(again).observe(document.documentElement, { attributeFilter: ['data-theme'] });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', again);
