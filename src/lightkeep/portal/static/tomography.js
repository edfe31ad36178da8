// Tomography to look at: linked planes with a cross-hair, a strip of candidate centres, two volumes compared.
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const short = (value) => (value === 0 ? '0' : Math.abs(value) < 0.001 || Math.abs(value) >= 1e5
  ? value.toExponential(1) : String(Number(value.toPrecision(3)))).replace('-', '−');

// One picture on its way at a time, always the latest asked for: a scrubber never queues.
function latest(image) {
  let wanted = null;
  let loading = false;
  return async (address) => {
    wanted = address;
    if (loading) return;
    loading = true;
    while (wanted) {
      const next = new Image();
      next.src = wanted;
      wanted = null;
      try {
        await next.decode();
        image.src = next.src;
        image.classList.remove('broken');
      } catch {
        image.classList.add('broken');
      }
    }
    loading = false;
  };
}

// ---- contrast: two handles over the histogram, in thousandths of its width
function contrast(root, data, changed) {
  const form = $('.contrast', root);
  const [low, high] = [form.elements.low, form.elements.high];
  const [least, most] = [Number(data.least), Number(data.most)];
  const at = (value) => Math.round((1000 * (value - least)) / (most - least));
  const value = (handle) => least + (handle.value / 1000) * (most - least);
  const levels = { low: Number(data.low), high: Number(data.high), palette: 'grey' };
  const tell = () => {
    $('[data-levels]', form).textContent = `${short(levels.low)} to ${short(levels.high)}`;
    for (const bar of $$('rect', form)) {
      const middle = least + ((Number(bar.getAttribute('x')) + 0.5) / 64) * (most - least);
      bar.classList.toggle('out', middle < levels.low || middle > levels.high);
    }
  };
  const auto = () => {
    levels.low = Number(data.low);
    levels.high = Number(data.high);
    low.value = at(levels.low);
    high.value = at(levels.high);
    tell();
  };
  form.addEventListener('input', (event) => {
    if (event.target === low && +low.value > high.value - 5) low.value = high.value - 5;
    if (event.target === high && +high.value < +low.value + 5) high.value = +low.value + 5;
    if (event.target === low) levels.low = value(low);
    if (event.target === high) levels.high = value(high);
    levels.palette = form.elements.palette.value;
    tell();
    changed();
  });
  $('[data-auto]', form).addEventListener('click', () => {
    auto();
    changed();
  });
  auto();
  return levels;
}

const query = (levels, longest) =>
  `low=${levels.low}&high=${levels.high}&palette=${levels.palette}&longest=${longest}`;
const sharp = () => Math.min(2048, Math.round(768 * Math.min(2, devicePixelRatio)));

// ---- linked planes
function planes(root) {
  const names = root.dataset.names.split(' ');
  const shape = root.dataset.shape.split(' ').map(Number);
  const length = Object.fromEntries(names.map((name, index) => [name, shape[index]]));
  const at = Object.fromEntries(names.map((name) => [name, Math.floor(length[name] / 2)]));
  const figures = $$('[data-plane]', root).map((figure) => ({
    ...figure.dataset,
    figure,
    frame: $('.frame-of', figure),
    show: latest($('img', figure)),
    slider: $('.along input', figure),
  }));
  const levels = contrast(root, root.dataset, () => figures.forEach(draw));
  function draw(each) {
    const address = `${root.dataset.planes}/${each.plane}/${at[each.across]}.png?`;
    each.show(address + query(levels, sharp()));
    $('a[download]', each.figure).href = address + query(levels, 2048);
  }
  function move(to) {
    const before = { ...at };
    for (const [name, value] of Object.entries(to)) at[name] = clamp(Math.round(value), 0, length[name] - 1);
    tell();
    for (const each of figures) if (at[each.across] !== before[each.across]) draw(each);
    root.dispatchEvent(new CustomEvent('moved', { detail: at }));
  }
  function tell() {
    for (const each of figures) {
      each.slider.value = at[each.across];
      $('output', each.figure).textContent = `${at[each.across]} / ${length[each.across] - 1}`;
      const [x, y] = [(at[each.right] + 0.5) / length[each.right], (at[each.down] + 0.5) / length[each.down]];
      const [vertical, horizontal] = [$('.v', each.figure), $('.h', each.figure)];
      vertical.setAttribute('x1', x);
      vertical.setAttribute('x2', x);
      horizontal.setAttribute('y1', y);
      horizontal.setAttribute('y2', y);
    }
    for (const name of names) {
      $(`[data-at=${name}]`, root).textContent = at[name];
      const where = $(`[data-length=${name}]`, root);
      if (where) where.textContent = short(at[name] * where.dataset.step);
    }
    const theta = $('[data-theta]', root);
    if (theta) {
      const [first, last] = theta.dataset.theta.split(' ').map(Number);
      theta.textContent = short(first + ((last - first) * at.angle) / Math.max(1, length.angle - 1));
    }
  }
  for (const each of figures) {
    each.frame.style.aspectRatio = `${length[each.right]} / ${length[each.down]}`;
    each.slider.addEventListener('input', () => move({ [each.across]: Number(each.slider.value) }));
    const point = (event) => {
      const box = each.frame.getBoundingClientRect();
      move({
        [each.right]: ((event.clientX - box.left) / box.width) * length[each.right] - 0.5,
        [each.down]: ((event.clientY - box.top) / box.height) * length[each.down] - 0.5,
      });
    };
    each.frame.addEventListener('pointerdown', (event) => {
      each.frame.setPointerCapture(event.pointerId);
      point(event);
    });
    each.frame.addEventListener('pointermove', (event) => {
      if (event.buttons & 1) point(event);
    });
    each.frame.addEventListener('wheel', (event) => {
      if (!event.shiftKey) return;
      event.preventDefault();
      move({ [each.across]: at[each.across] + Math.sign(event.deltaY || event.deltaX) });
    }, { passive: false });
    each.frame.addEventListener('keydown', (event) => {
      const keys = {
        ArrowLeft: [each.right, -1], ArrowRight: [each.right, 1], ArrowUp: [each.down, -1],
        ArrowDown: [each.down, 1], PageUp: [each.across, -1], PageDown: [each.across, 1],
      };
      const key = keys[event.key];
      if (!key) return;
      event.preventDefault();
      move({ [key[0]]: at[key[0]] + key[1] * (event.shiftKey ? 10 : 1) });
    });
  }
  const sizes = $('.planes.volume', root);
  if (sizes) { // one scale in all three, so that the crosses line up; the facts need some width
    const ratio = length.z / length.x;
    sizes.style.setProperty('--z', `${Math.max(0.3, ratio)}fr`);
    sizes.style.setProperty('--narrow', Math.min(1, ratio / 0.3));
  }
  tell();
  figures.forEach(draw);
  root.dataset.ready = 'yes';
  return at;
}

// ---- candidate centres
function centers(root, at) {
  const form = $('form.fields', root);
  const strip = $('.strip-of-slices', root);
  const large = $('.large img', root);
  const told = $('[data-told]', root);
  const [columns, begin] = [Number(root.dataset.columns), Number(root.dataset.rowBegin)];
  let picked = Number(root.dataset.center);
  const row = () => at[root.dataset.rowOf] + begin;
  let asked = 0;
  const round = (value) => Math.round(value * 100) / 100;
  function pick(center) {
    picked = center;
    for (const each of strip.children) {
      const is = Number(each.dataset.center) === center;
      each.setAttribute('aria-checked', is);
      each.tabIndex = is ? 0 : -1;
      if (!is) continue;
      large.src = $('img', each).src;
      strip.scrollLeft = each.offsetLeft - strip.offsetLeft - (strip.clientWidth - each.offsetWidth) / 2;
    }
    const named = $('[data-picked]', root);
    if (named) {
      named.textContent = center;
      $('input[name=center]', root).value = center;
    }
  }
  // All at once: a sweep costs little more than one slice, and flicking from one to the next then waits for nothing.
  async function show() {
    const step = Number(form.elements.step.value);
    const middle = clamp(Number(form.elements.around.value), 0, columns - 1);
    if (!Number.isFinite(middle)) return;
    const mine = ++asked;
    const all = [-4, -3, -2, -1, 0, 1, 2, 3, 4].map((n) => round(middle + n * step));
    const wanted = all.filter((center) => center >= 0 && center <= columns - 1);
    const ask = new URLSearchParams([['row', row()], ['longest', 640], ...wanted.map((center) => ['center', center])]);
    root.setAttribute('aria-busy', true);
    told.textContent = `Reconstructing row ${row()} with ${wanted.length} centres…`;
    try {
      const answer = await fetch(`${root.dataset.centers}?${ask}`);
      const found = await answer.json();
      if (mine !== asked) return;
      if (!answer.ok) throw new Error(found.detail ?? found.title);
      strip.replaceChildren(...found.map(candidate));
      told.textContent = `Row ${row()}. Arrow keys go from one to the next.`;
      $('.sweep', root).hidden = false;
      pick(round(middle));
    } catch (error) {
      if (mine === asked) told.textContent = `No slices: ${error.message}`;
    }
    if (mine === asked) root.removeAttribute('aria-busy');
  }
  function candidate({ center, png }) {
    const button = document.createElement('button');
    button.type = 'button';
    button.setAttribute('role', 'radio');
    button.dataset.center = center;
    const image = document.createElement('img');
    image.alt = '';
    image.src = png;
    const label = document.createElement('span');
    label.className = 'num';
    label.textContent = center;
    button.append(image, label);
    return button;
  }
  strip.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (button) pick(Number(button.dataset.center));
  });
  strip.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    const next = step && strip.children[[...strip.children].indexOf(event.target.closest('button')) + step];
    if (!next) return;
    event.preventDefault();
    pick(Number(next.dataset.center));
    next.focus();
  });
  const again = () => {
    if (!$('.sweep', root).hidden) show();
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    show();
  });
  // Nobody reconstructed this scan yet: begin where the row itself says that its axis is.
  let isKnown = 'known' in root.dataset;
  form.elements.around.addEventListener('input', () => { isKnown = true; });
  async function find() {
    told.textContent = `Looking for the axis in row ${row()}…`;
    const answer = await fetch(`${root.dataset.centers.slice(0, -1)}?row=${row()}`);
    if (!answer.ok) return; // the middle of the detector then
    const { center } = await answer.json();
    if (!isKnown) form.elements.around.value = round(center);
    isKnown = true;
  }
  $('[data-show]', root).addEventListener('click', async () => {
    if (!isKnown) await find();
    show();
  });
  form.elements.step.addEventListener('change', () => {
    form.elements.around.value = picked;
    again();
  });
  for (const button of $$('[data-step]', root)) {
    button.addEventListener('click', () => {
      form.elements.around.value = round(Number(form.elements.around.value)
        + button.dataset.step * 4 * Number(form.elements.step.value));
      show();
    });
  }
  let waiting = 0;
  document.addEventListener('moved', () => {
    clearTimeout(waiting);
    waiting = setTimeout(again, 400);
  }, true);
}

// ---- two volumes compared
function compare(root) {
  const shape = root.dataset.shape.split(' ').map(Number);
  const picker = $('.picker', root);
  const stage = $('.versus', root);
  const shows = Object.fromEntries($$('img[data-side]', root).map((image) => [image.dataset.side, latest(image)]));
  const levels = contrast(root, root.dataset, draw);
  const across = { xy: 0, xz: 1, zy: 2 };
  const seen = { xy: [2, 1], xz: [2, 0], zy: [0, 1] };
  function draw() {
    const { plane, index, how } = picker.elements;
    $('[data-index]', root).textContent = `${index.value} / ${index.max}`;
    stage.className = `versus ${how.value}`;
    const [width, height] = seen[plane.value].map((axis) => shape[axis]);
    for (const image of $$('img', stage)) image.style.aspectRatio = `${width} / ${height}`;
    const end = `${plane.value}/${index.value}.png?`;
    if (how.value === 'minus') {
      const span = (levels.high - levels.low) / 4;
      $('[data-span]', root).textContent = `±${short(span)}`;
      shows.minus(`${root.dataset.compare}/minus/${root.dataset.otherId}/${end}span=${span}&longest=${sharp()}`);
    } else {
      shows.a(`${root.dataset.compare}/${end}${query(levels, sharp())}`);
      shows.b(`${root.dataset.other}/${end}${query(levels, sharp())}`);
    }
  }
  picker.addEventListener('input', (event) => {
    const { plane, index } = picker.elements;
    if (event.target === plane) {
      index.max = shape[across[plane.value]] - 1;
      index.value = Math.floor(shape[across[plane.value]] / 2);
    }
    draw();
  });
  picker.addEventListener('submit', (event) => event.preventDefault());
  const knife = $('.knife', stage);
  const cut = () => stage.style.setProperty('--cut', knife.value / 1000);
  knife.addEventListener('input', cut);
  cut();
  draw();
  root.dataset.ready = 'yes';
}

const looked = $('[data-planes]');
const at = looked && planes(looked);
for (const each of $$('[data-centers]')) centers(each, at);
for (const each of $$('[data-compare]')) compare(each);
for (const each of $$('select[data-go]')) each.addEventListener('change', () => each.form.submit());
