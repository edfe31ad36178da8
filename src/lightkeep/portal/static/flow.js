// A flow as it goes: bars and messages in place; the page's part is fetched again when a stage begins or ends.
const part = document.querySelector('[data-flow]');
const states = (flow) => [flow.flow.state, ...flow.runs.map((run) => `${run.id} ${run.state}`)].join();
let known = null;
if (!part.dataset.over) {
  const source = new EventSource(`/api/v1/flows/${part.dataset.flow}/events`);
  source.addEventListener('flow', (event) => {
    const flow = JSON.parse(event.data);
    const now = states(flow);
    if (known !== null && now !== known) {
      htmx.ajax('GET', `/flows/${part.dataset.flow}/live`, { target: '#flow', swap: 'innerHTML' });
    }
    known = now;
    for (const run of flow.runs) {
      for (const bar of part.querySelectorAll('.go')) {
        if (bar.dataset.stage === run.stage) bar.setAttribute('width', run.progress * bar.dataset.whole);
      }
      const message = part.querySelector(`[data-message="${CSS.escape(run.id)}"]`);
      if (message) message.textContent = run.message;
    }
    if (flow.flow.state !== 'running') source.close();
  });
  source.addEventListener('gone', () => source.close());
}
