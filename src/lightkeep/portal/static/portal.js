// Small comforts on top of pages that work without them: copy, theme, search key, times, scrubber, live runs.
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// ---- theme
const dark = () => {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
};
$('#theme')?.addEventListener('click', () => {
  const next = dark() ? 'light' : 'dark';
  document.documentElement.dataset.theme = next;
  localStorage.setItem('theme', next);
});

// ---- keys, copying, menus
document.addEventListener('keydown', (event) => {
  if (event.key === '/' && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    const field = $('#find-q') ?? $('#search');
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  }
});
document.addEventListener('click', (event) => {
  const copy = event.target.closest('[data-copy]');
  if (copy) {
    event.preventDefault();
    navigator.clipboard?.writeText(copy.dataset.copy).then(() => {
      copy.classList.add('done');
      setTimeout(() => copy.classList.remove('done'), 1200);
    });
  }
  for (const menu of $$('details.menu[open]')) if (!menu.contains(event.target)) menu.open = false;
});

// ---- times: relative, kept fresh; the exact one on hover, in the reader's zone
const STEPS = [[60, 1, 's'], [3600, 60, 'min'], [86400, 3600, 'h'], [30 * 86400, 86400, 'd']];
function relative(at) {
  const seconds = Math.max(0, (Date.now() - at) / 1000);
  if (seconds < 5) return 'just now';
  for (const [limit, unit, name] of STEPS) {
    if (seconds < limit) return `${Math.floor(seconds / unit)} ${name} ago`;
  }
  return null;
}
function times(root = document) {
  for (const each of $$('time[datetime]', root)) {
    const at = new Date(each.dateTime);
    each.title = at.toLocaleString(undefined, { dateStyle: 'long', timeStyle: 'medium' });
    const text = 'ago' in each.dataset && relative(at.getTime());
    if (text) each.textContent = text;
  }
}
times();
setInterval(times, 20_000);
document.addEventListener('htmx:afterSwap', (event) => {
  times(event.detail.elt);
  scrub(event.detail.elt);
});

// ---- pictures that are not there give way to a sign
document.addEventListener('error', (event) => {
  if (event.target.matches?.('img.thumb')) event.target.replaceWith($('#no-picture').content.cloneNode(true));
}, true);

// ---- the scrubber: one picture on its way at a time, always the latest asked for
function scrub(root = document) {
  for (const figure of $$('[data-figure]', root)) {
    if (figure.dataset.ready) continue;
    figure.dataset.ready = 'yes';
    const image = $('.image img', figure);
    const slider = $('input[type=range]', figure);
    const palette = $('select[name=palette]', figure);
    const address = (longest) => {
      const index = slider ? slider.value : figure.dataset.index;
      return `${figure.dataset.figure}/${index}.png?palette=${palette.value}&longest=${longest}`;
    };
    let loading = false;
    let wanted = null;
    const load = async () => {
      if (loading) return;
      loading = true;
      while (wanted) {
        const next = new Image();
        next.src = wanted;
        wanted = null;
        try {
          await next.decode();
          image.src = next.src;
        } catch {
          image.alt = 'this image could not be drawn';
        }
      }
      loading = false;
    };
    const show = () => {
      if (slider) $('output', figure).textContent = `${Number(slider.value) + 1} / ${Number(slider.max) + 1}`;
      $('.strip', figure).className = `strip ${palette.value}`;
      $('a[download]', figure).href = address(2048);
      wanted = address(1024);
      load();
    };
    slider?.addEventListener('input', show);
    palette.addEventListener('change', show);
    const dialog = $('dialog', figure);
    const enlarge = () => {
      $('img', dialog).src = address(2048);
      dialog.showModal();
    };
    $('.image', figure).addEventListener('click', enlarge);
    $('[data-enlarge]', figure).addEventListener('click', enlarge);
    dialog.addEventListener('click', () => dialog.close());
    image.addEventListener('wheel', (event) => {
      if (!slider || !event.shiftKey) return;
      event.preventDefault();
      slider.value = Number(slider.value) + Math.sign(event.deltaY || event.deltaX);
      show();
    }, { passive: false });
  }
}
scrub();

// ---- a value that cannot be sent is shown, where it is folded away
document.addEventListener('invalid', (event) => {
  const fold = event.target.closest('details');
  if (fold) fold.open = true;
}, true);

// ---- a run as it goes
for (const live of $$('[data-run]')) {
  const source = new EventSource(`/api/v1/runs/${live.dataset.run}/events`);
  let { state } = live.dataset;
  source.addEventListener('run', (event) => {
    const run = JSON.parse(event.data);
    const percent = Math.round(run.progress * 100);
    const bar = $('progress', live);
    if (bar) {
      const hasNoEnd = run.engine === 'live' && !run.progress; // nobody said how many frames there will be
      if (!hasNoEnd) bar.value = run.progress;
      $('.percent', live).hidden = hasNoEnd;
      $('[data-percent]', live).textContent = percent;
      $('[data-message]', live).textContent = run.message;
      const begin = run.state === 'running' && !hasNoEnd ? `${percent} % · ` : '';
      document.title = document.title.replace(/^(\d+ % · )?/, begin);
    }
    if (run.state !== state) {
      state = run.state;
      htmx.ajax('GET', `/runs/${run.id}/live`, { target: '#live', swap: 'innerHTML' });
    }
    if (!['queued', 'running'].includes(run.state)) source.close();
  });
  source.addEventListener('gone', () => source.close());
}
// seconds since a run began, counted here between two messages
setInterval(() => {
  for (const each of $$('[data-since]')) {
    const seconds = Math.max(0, Math.floor((Date.now() - new Date(each.dataset.since)) / 1000));
    each.textContent = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  }
}, 1000);
