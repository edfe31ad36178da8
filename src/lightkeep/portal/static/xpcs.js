// The page of a correlation result: figures that know of each other. One bin is chosen, in the list, in a figure or in
// the table; everything else follows.
import { $, $$, Figure, get, number, rows, time, within } from './plots.js';
import * as draw from './xpcs_figures.js';

const AGES = [1 / 6, 1 / 2, 5 / 6];
const WIDTH = 1 / 15;
const PANEL = 230;

const root = $('[data-xpcs]');
const address = root.dataset.xpcs;
const figures = Object.fromEntries($$('[data-plot]', root).map((each) => [each.dataset.plot, new Figure(each)]));
const picker = { bin: $('[name=bin]', root), model: $('[name=model]', root), baseline: $('[name=baseline]', root) };
const layoutOf = $('[name=layout]', root);
const partsOf = $('[name=parts]', root);
const edges = $('[name=edges]', root);

let curves = null;
let fit = null;
let picture = null;
let map = null;
let ages = [];
let chosen = -1;

// ---- one bin
function choose(index) {
  if (!curves || index === chosen) return;
  chosen = index;
  picker.bin.value = index < 0 ? '' : String(index);
  for (const row of $$('.fits tbody tr', root)) row.setAttribute('aria-selected', Number(row.dataset.index) === index);
  drawG2();
  drawLaw();
  drawImage();
  loadMap();
}

function fillPicker() {
  for (const index of curves.bins.keys()) picker.bin.append(new Option(draw.named(curves, index), index));
  picker.bin.addEventListener('change', () => choose(picker.bin.value === '' ? -1 : Number(picker.bin.value)));
  $('[data-step="-1"]', root).addEventListener('click', () => choose(Math.max(-1, chosen - 1)));
  $('[data-step="1"]', root).addEventListener('click', () => choose(Math.min(curves.bins.length - 1, chosen + 1)));
}

// ---- g2 and its fits
function drawG2() {
  if (!curves.g2.length) {
    figures.g2.none('This result holds no multi-tau g₂; see the two-time correlation below.');
    return;
  }
  const isGrid = layoutOf.value === 'grid';
  const columns = Math.max(1, Math.min(6, Math.round(root.clientWidth / PANEL)));
  figures.g2.element.dataset.mode = layoutOf.value;
  figures.g2.element.style.setProperty('--panels', Math.ceil(curves.g2.length / columns));
  figures.g2.draw(isGrid ? draw.g2Grid(curves, fit, columns) : draw.g2(curves, fit, chosen));
  if (chosen < 0 || !fit) figures.g2.says('');
  else if (!fit.is_good[chosen]) figures.g2.says(`${draw.named(curves, chosen)}: fit not used, ${fit.reason[chosen]}.`);
  else {
    const value = (name) => within(fit.values[name][chosen], fit.errors[name][chosen]);
    figures.g2.says(`${draw.named(curves, chosen)}: τ = ${value('tau_c')} ${curves.time_unit}, contrast ${value('contrast')}, χ² ${number(fit.chi2[chosen], 2)}`);
  }
}

function answer() {
  const used = fit.is_good.filter(Boolean).length;
  const place = $('[data-answer]', root);
  place.textContent = `${used} of ${fit.is_good.length} bins fitted by a ${draw.MODELS[fit.model]}. ${fit.law ? draw.lawInWords(fit.law) : `No power law: ${fit.no_law}.`}`;
}

function drawLaw() {
  if (!fit || fit.no_law === 'the q of the bins is not known') {
    figures.law.none(fit ? 'The q of the bins is not known.' : 'There is no g₂ to fit.');
    return;
  }
  figures.law.draw(draw.law(curves, fit, chosen));
  figures.law.says(fit.law ? `n = ${within(fit.law.exponent, fit.law.exponent_err)}, χ² ${number(fit.law.chi2, 2)}` : `No power law: ${fit.no_law}.`);
}

function cell(text, className = 'num') {
  return Object.assign(document.createElement('td'), { textContent: text, className });
}

function fillTable() {
  const names = Object.keys(fit.values);
  const words = { tau_c: `τ / ${curves.time_unit}`, contrast: 'contrast', baseline: 'baseline', stretch: 'stretch', slow_ratio: 'slow / fast', fraction: 'fast part' };
  const head = document.createElement('tr');
  const headings = ['Bin', 'q / Å⁻¹', ...names.map((each) => words[each] ?? each), 'χ²', ''];
  head.append(...headings.map((each, at) => Object.assign(document.createElement('th'), { textContent: each, className: at === headings.length - 1 ? '' : 'num' })));
  const body = curves.bins.map((bin, index) => {
    const row = document.createElement('tr');
    row.dataset.index = index;
    row.setAttribute('aria-selected', index === chosen);
    row.append(cell(bin), cell(number(curves.q[index] ?? NaN)));
    row.append(...names.map((each) => cell(within(fit.values[each][index] ?? NaN, fit.errors[each][index]))));
    row.append(cell(number(fit.chi2[index], 2)), cell(fit.is_good[index] ? '' : fit.reason[index], 'wrong'));
    return row;
  });
  const table = $('.fits', root);
  $('thead', table).replaceChildren(head);
  $('tbody', table).replaceChildren(...body);
}

async function loadFit() {
  if (!curves.g2.length) {
    drawLaw();
    return;
  }
  const asked = new URLSearchParams({ model: picker.model.value });
  if (picker.baseline.checked) asked.set('baseline', '1');
  const mine = asked.toString();
  loadFit.latest = mine;
  const found = await get(`${address}/fit?${mine}`);
  if (loadFit.latest !== mine) return;
  fit = found;
  answer();
  fillTable();
  drawG2();
  drawLaw();
}

// ---- the image, and what is under the pointer
function drawImage() {
  if (picture) figures.image.draw(draw.image(picture, chosen < 0 ? 0 : curves.bins[chosen], { showBins: edges.checked }));
}

function underPointer(point) {
  if (!point) {
    figures.image.says('A click chooses the bin.');
    return;
  }
  const [row, column] = [Math.round((point.y - point.data.y0) / picture.factor), Math.round((point.x - point.data.x0) / picture.factor)];
  const bin = picture.bins[row]?.[column];
  const parts = [`column ${Math.round(point.x)}, row ${Math.round(point.y)}`];
  if (picture.q) parts.push(`q ${number(picture.q[row][column])} Å⁻¹`, `φ ${number(picture.phi[row][column])}°`);
  const value = picture.values[row]?.[column];
  parts.push(Number.isNaN(value) ? 'masked' : `${number(value)} counts`, bin ? `bin ${bin}` : 'no bin');
  figures.image.says(parts.join(' · '));
}

async function loadImage() {
  const found = await get(`${address}/image`);
  picture = { ...found, values: rows(found.values), bins: rows(found.bins), q: found.q && rows(found.q), phi: found.phi && rows(found.phi) };
  figures.image.clicked = (point) => {
    const row = Math.round((point.y - (picture.factor - 1) / 2) / picture.factor);
    const bin = picture.bins[row]?.[Math.round((point.x - (picture.factor - 1) / 2) / picture.factor)];
    const index = curves.bins.indexOf(bin);
    choose(index === chosen ? -1 : index);
  };
  figures.image.hovered = (point) => point?.data.type !== 'scatter' && underPointer(point);
  drawImage();
  underPointer(null);
}

// ---- static curves and the beam
function drawStatic() {
  if (curves.saxs_1d.length) {
    figures.saxs.draw(draw.saxs(curves));
    const totals = curves.saxs_1d_segments.map((part) => part.reduce((sum, each) => sum + (each ?? 0), 0));
    const mean = totals.reduce((sum, each) => sum + each, 0) / totals.length;
    if (totals.length > 1) figures.saxs.says(`${totals.length} parts of the run, from first (dark) to last (light): within ${number(100 * Math.max(...totals.map((each) => Math.abs(each / mean - 1))), 2)} % of their mean.`);
  } else figures.saxs.none('This result holds no static curve.');
  if (curves.intensity.length) {
    figures.intensity.draw(draw.intensity(curves));
    if (curves.together > 1) figures.intensity.says(`Each point is the mean of ${curves.together} frames.`);
  } else figures.intensity.none('This result holds no intensity over time.');
  if (curves.frequency.length) {
    figures.spectrum.draw(draw.spectrum(curves));
    const highest = curves.amplitude.reduce((best, each, at, all) => (each > all[best] ? at : best), 0);
    const unit = curves.time_unit === 's' ? 'Hz' : 'per frame';
    figures.spectrum.says(`Strongest at ${number(curves.frequency[highest])} ${unit}: ${number(100 * curves.amplitude[highest], 2)} % of the mean.`);
  } else figures.spectrum.none('No spectrum: the run is too short, or empty.');
}

// ---- two times
async function loadMap() {
  const there = curves.two_time_bins;
  if (!there.length) {
    for (const each of ['map', 'cuts']) figures[each].element.hidden = true;
    return;
  }
  const wanted = curves.bins[chosen];
  const bin = there.includes(wanted) ? wanted : (map?.bin ?? there[0]);
  if (map?.bin !== bin) {
    const found = await get(`${address}/two-time/${bin}`);
    map = { ...found, values: rows(found.values).map((row) => Array.from(row, (each) => (Number.isNaN(each) ? null : each))) };
    ages = AGES.map((part) => part * map.frames * map.step);
  }
  const index = curves.bins.indexOf(bin);
  const name = index >= 0 ? draw.named(curves, index) : `bin ${bin}`;
  const others = wanted && wanted !== bin ? ` Bin ${wanted} has none; ${there.length === 1 ? 'only this one has' : `bins ${there.join(', ')} have`}.` : '';
  figures.map.says(`${name}.${others}`);
  drawMap();
}

async function drawMap() {
  figures.map.draw(draw.twoTime(map, curves, partsOf.value === 'ages' ? ages : []));
  if (partsOf.value !== 'ages') {
    const parts = map.segments.map((g2, index, all) => ({ name: `part ${index + 1} of ${all.length}`, tau: map.segment_tau, g2 }));
    figures.cuts.draw(draw.cut(map, curves, parts));
    figures.cuts.says('g₂ inside equal parts of the run.');
    return;
  }
  const [bin, width] = [map.bin, WIDTH * map.frames * map.step];
  const asked = new URLSearchParams([...ages.map((each) => ['age', each]), ['width', width]]);
  const found = await get(`${address}/two-time/${bin}/cuts?${asked}`);
  if (map.bin !== bin) return;
  const lines = found.map((each) => ({ ...each, name: `age ${time(each.age, curves.time_unit)}` }));
  figures.cuts.draw(draw.cut(map, curves, lines));
  figures.cuts.says(`Age (t₁ + t₂)/2 within ± ${time(width / 2, curves.time_unit)}; a click on the map moves the nearest cut.`);
}

function moveCut(point) {
  if (partsOf.value !== 'ages') return;
  const age = (point.x + point.y) / 2;
  const nearest = ages.reduce((best, each, at) => (Math.abs(each - age) < Math.abs(ages[best] - age) ? at : best), 0);
  ages = ages.with(nearest, age).sort((a, b) => a - b);
  drawMap();
}

// ---- all of it
function listen() {
  picker.model.addEventListener('change', loadFit);
  picker.baseline.addEventListener('change', loadFit);
  layoutOf.addEventListener('change', drawG2);
  partsOf.addEventListener('change', drawMap);
  edges.addEventListener('change', drawImage);
  figures.g2.clicked = (point) => choose(point.data.meta.index === chosen ? -1 : point.data.meta.index);
  figures.law.clicked = (point) => choose(point.customdata ?? -1);
  figures.map.clicked = moveCut;
  $('.fits', root).addEventListener('click', (event) => {
    const row = event.target.closest('tr[data-index]');
    if (row) choose(Number(row.dataset.index) === chosen ? -1 : Number(row.dataset.index));
  });
}

function failed(names) {
  return (error) => {
    for (const each of names) figures[each].none(error.message);
  };
}

async function start() {
  curves = await get(address);
  fillPicker();
  listen();
  drawG2();
  drawStatic();
  await Promise.all([
    loadFit().catch(failed(['law'])),
    loadImage().catch(failed(['image'])),
    loadMap().catch(failed(['map', 'cuts'])),
  ]);
  root.dataset.ready = 'yes';
}

start().catch(failed(Object.keys(figures)));
