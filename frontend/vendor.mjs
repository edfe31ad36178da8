// Copies what the portal serves as it is (fonts, htmx, Plotly) and collects the licences of everything that is bundled.
import { copyFileSync, mkdirSync, readFileSync, readdirSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const modules = new URL('./node_modules/', import.meta.url).pathname;
const target = new URL('../src/lightkeep/portal/static/', import.meta.url).pathname;

const files = {
  'fonts/plex-sans.woff2': '@fontsource-variable/ibm-plex-sans/files/ibm-plex-sans-latin-wght-normal.woff2',
  'fonts/plex-mono.woff2': '@fontsource/ibm-plex-mono/files/ibm-plex-mono-latin-400-normal.woff2',
  'fonts/plex-mono-medium.woff2': '@fontsource/ibm-plex-mono/files/ibm-plex-mono-latin-500-normal.woff2',
  'fonts/LICENSE.txt': '@fontsource/ibm-plex-mono/LICENSE',
  'vendor/htmx.min.js': 'htmx.org/dist/htmx.min.js',
  'vendor/htmx.LICENSE.txt': 'htmx.org/LICENSE',
  'vendor/plotly.min.js': 'plotly.js-cartesian-dist-min/plotly-cartesian.min.js',
  'vendor/plotly.LICENSE.txt': 'plotly.js-cartesian-dist-min/LICENSE',
};
for (const [to, from] of Object.entries(files)) {
  mkdirSync(join(target, to, '..'), { recursive: true });
  copyFileSync(join(modules, from), join(target, to));
}

// Everything that the viewer depends on at run time, from h5web and React down.
const seen = new Map();
function walk(name) {
  const manifest = join(modules, name, 'package.json');
  if (seen.has(name) || !existsSync(manifest)) return;
  const { version, license, dependencies = {}, peerDependencies = {} } = JSON.parse(readFileSync(manifest, 'utf8'));
  const file = readdirSync(join(modules, name)).find((each) => /^licen[cs]e/i.test(each));
  const text = file ? readFileSync(join(modules, name, file), 'utf8').trim() : '';
  seen.set(name, `${name} ${version} (${license})\n\n${text}`);
  [...Object.keys(dependencies), ...Object.keys(peerDependencies)].forEach(walk);
}
['@h5web/app', 'react', 'react-dom'].forEach(walk);
const rule = `\n\n${'-'.repeat(78)}\n\n`;
const notices = [...seen.keys()].filter((name) => !/^(@types\/|typescript$|csstype$)/.test(name)).sort();
writeFileSync(
  join(target, 'viewer/LICENSES.txt'),
  `The data viewer is built from these packages.${rule}${notices.map((name) => seen.get(name)).join(rule)}\n`,
);
