// The h5web island: /static/viewer/index.html?dataset=<id>&name=<shown name>. Paths never leave the server.
import { App, H5GroveProvider } from '@h5web/app';
import '@h5web/app/styles.css';
import { createRoot } from 'react-dom/client';
import './viewer.css';

const asked = new URLSearchParams(window.location.search);
const dataset = asked.get('dataset') ?? '';
const api = new URL(`/api/v1/datasets/${encodeURIComponent(dataset)}/h5`, window.location.origin).href;

createRoot(document.querySelector('#root')!).render(
  <H5GroveProvider url={api} filepath={asked.get('name') ?? dataset}>
    <App sidebarOpen={window.innerWidth > 760} initialPath={asked.get('path') ?? '/'} />
  </H5GroveProvider>,
);
