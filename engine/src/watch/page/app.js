// Begins the page: which cluster, which view, how the connection is, light or dark, keys.

import { get, ofCluster, useCluster } from './api.js';
import { follow } from './live.js';
import { alarmChanged, decided, forget, incidentChanged, listen, patch, remember, replace, store } from './state.js';
import { announce } from './ui/announce.js';
import { help } from './ui/dialog.js';
import { attribute, fill, h, show } from './ui/dom.js';
import { clock, duration, many } from './ui/format.js';
import { icon } from './ui/icons.js';
import { button } from './ui/parts.js';
import { sentence } from './ui/words.js';
import { armAgain } from './actions.js';
import * as demo from './views/demo.js';
import * as drawer from './views/drawer.js';
import * as election from './views/election.js';
import * as events from './views/events.js';
import * as incidents from './views/incidents.js';
import * as overview from './views/overview.js';
import * as policies from './views/policies.js';
import * as settings from './views/settings.js';

const VIEWS = { overview, election, incidents, policies, settings, events };
const ICONS = { overview: 'columns', election: 'vote', incidents: 'timeline', policies: 'puzzle', settings: 'sliders', events: 'list' };
const THEMES = ['system', 'dark', 'light'];
const byId = (id) => document.getElementById(id);

let link = null;
let shown = null;
let cluster = null;
let clusters = [];

async function begin() {
  theme(localStorage.getItem('steadfast-theme') ?? 'system');
  byId('theme').addEventListener('click', nextTheme);
  byId('help').addEventListener('click', help);
  byId('skip').addEventListener('click', (event) => {
    event.preventDefault();
    byId('main').focus();
  });
  byId('tabs').append(...Object.keys(VIEWS).map((name) => h('a', { href: `#/${name}`, id: `tab-${name}` }, icon(ICONS[name]), h('span', title(name)))));
  document.addEventListener('keydown', keys);
  addEventListener('hashchange', route);
  listen(update);
  setInterval(connection, 500);
  await choose();
  about();
}

const title = (name) => name[0].toUpperCase() + name.slice(1);

/** Without an answer the page goes on asking: HA-watch may be starting. */
async function choose() {
  for (;;) {
    const found = await get('/v1/clusters').catch((problem) => problem);
    if (Array.isArray(found) && found.length > 0) {
      clusters = found;
      break;
    }
    const why = Array.isArray(found) ? 'This HA-watch follows no cluster yet: add one to its configuration.' : sentence(found.message);
    fill(byId('main'), h('p.empty', why));
    await new Promise((resolve) => setTimeout(resolve, 2_000));
  }
  const asked = clusterOfAddress();
  open(clusters.some(({ id }) => id === asked) ? asked : clusters[0].id);
}

/** `#/overview@prod`: the cluster stands behind an @, if there are several. */
const clusterOfAddress = () => decodeURIComponent(location.hash.split('@')[1] ?? '');

function open(id) {
  cluster = id;
  useCluster(id);
  link?.stop();
  forget();
  pickCluster();
  let before = null;
  link = follow(ofCluster('live'), {
    state(state) {
      replace(state);
      if (!shown) route();
      // Also after the connection was lost: what happened meanwhile is in the history.
      catchUp();
    },
    patch,
    decision: heard,
    incident: incidentChanged,
    alarm: alarmChanged,
    link(now) {
      if (before && before !== 'live' && now.now === 'live') announce('The connection is back.');
      before = now.now;
      connection();
    },
  });
}

function catchUp() {
  get(ofCluster('events?limit=60')).then(remember).catch(() => {});
  get(ofCluster('incidents?limit=30')).then((list) => list.forEach(incidentChanged)).catch(() => {});
}

const SAID = new Set(['suspected', 'evicted', 'fenced', 'elected', 'admitted', 'vm_running', 'vm_failed', 'reset', 'disarm', 'maintenance', 'risk', 'alarm']);

function heard(decision) {
  decided(decision);
  if (SAID.has(decision.kind)) announce(sentence(decision.text));
}

function pickCluster() {
  const box = byId('clusters');
  const one = clusters.find(({ id }) => id === cluster);
  if (clusters.length < 2) return fill(box, h('span.cluster-name', one?.name ?? cluster));
  const select = h('select', { 'aria-label': 'Cluster' }, clusters.map(({ id, name, worst }) => h('option', { value: id, selected: id === cluster },
    worst === 'ok' ? name : `${name} (${worst})`)));
  select.addEventListener('change', () => {
    location.hash = `#/overview@${encodeURIComponent(select.value)}`;
    open(select.value);
  });
  return fill(box, select);
}

/** `#/view/rest?query@cluster`. */
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('@')[0].split('?');
  const [name, ...rest] = path.split('/').map(decodeURIComponent);
  const view = VIEWS[name] ? name : 'overview';
  if (!store.state) return;
  if (shown?.name !== view) {
    shown?.hide?.();
    const main = byId('main');
    shown = { name: view, ...VIEWS[view].make() };
    fill(main, shown.element);
    scrollTo(0, 0);
    for (const tab of byId('tabs').children) attribute(tab, 'aria-current', tab.id === `tab-${view}` ? 'page' : null);
    document.body.dataset.view = view;
    document.title = `${title(view)} · ${store.state.cluster} · Steadfast`;
    shown.update({ all: true, keys: new Set(), nodes: new Set(), vms: new Set(), moved: new Map(), decisions: [], incidents: new Set() });
  }
  shown.show?.(rest, new URLSearchParams(query));
  drawer.route(view === 'overview' ? rest : []);
}

function update(news) {
  if (!store.state) {
    shown = null;
    return fill(byId('main'), h('p.empty', 'Waiting for the first word of the cluster…'));
  }
  if (!shown) route();
  shown?.update(news);
  drawer.update(news);
  if (news.all || news.keys.size > 0 || news.nodes.size > 0) banners();
  if (news.all || news.alarms || news.keys.has('watch')) alarms();
  return undefined;
}

// What everybody must see first.

function banners() {
  const { state } = store;
  const list = [];
  if (state.disarm) list.push(disarmed(state.disarm));
  if (state.quorate === false) list.push(['bad', 'unlink', 'The node that tells has no majority in view: what is said of other nodes is old.']);
  if (!state.leader) list.push(['warn', 'crown', 'There is no leader now. VMs keep running; an election decides who leads.']);
  const watch = state.watch;
  if (watch && watch.connected === false) list.push(['bad', 'unlink', 'HA-watch reaches no agent of this cluster: what you see is old. High availability goes on without it.']);
  for (const warning of state.warnings ?? []) list.push(['warn', 'warning', sentence(warning)]);
  const key = JSON.stringify(list.map(([tone, , words]) => [tone, words]));
  const box = byId('banners');
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  fill(box, list.map(([tone, name, words, action]) => h(`div.banner.${tone}`, { role: 'status' }, icon(name), h('p', words), action)));
}

function disarmed(disarm) {
  const limit = disarm.limit ? ` It is armed again by itself after ${duration(disarm.limit)}.` : '';
  const words = disarm.pending
    ? `High availability is about to be switched off (“${disarm.reason}”): what is under way ends first.`
    : `High availability is switched off for everybody: “${disarm.reason}”. Nothing is started, stopped or fenced.${limit}`;
  return ['warn', 'unshield', words, button('Arm again', armAgain, { name: 'shield' })];
}

function connection() {
  const box = byId('connection');
  if (!link) return;
  const { now, heard: at } = link;
  const silence = at === null ? null : Date.now() - at;
  const words = { connecting: 'connecting', live: 'live', late: `silent for ${duration(silence)}`, lost: at ? `lost since ${clock(at)}` : 'no connection' }[now];
  attribute(box, 'data-now', now);
  attribute(box, 'title', now === 'live' ? 'What you see is what is.' : sentence(link.why || 'what you see is old'));
  if (box.textContent !== words) box.textContent = words;
  document.body.classList.toggle('stale', now === 'lost');
}

async function alarms() {
  const open = store.state?.watch?.alarms_open ?? 0;
  const box = byId('alarms');
  show(box, open > 0);
  if (open > 0) fill(box, icon('bell'), many(open, 'alarm'));
  attribute(box, 'href', '#/incidents');
}

async function about() {
  const found = await get('/v1/about').catch(() => ({}));
  if (found?.demo) demo.begin(byId('demo'));
}

// Light and dark.

function theme(name) {
  document.documentElement.dataset.theme = name;
  const box = byId('theme');
  const label = { system: 'as the system', dark: 'dark', light: 'light' }[name];
  fill(box, icon({ system: 'half', dark: 'moon', light: 'sun' }[name]));
  box.setAttribute('aria-label', `Colours: ${label}`);
  box.title = `Colours: ${label}`;
}

function nextTheme() {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem('steadfast-theme', next);
  theme(next);
  announce(`Colours: ${next === 'system' ? 'as the system' : next}.`);
}

function keys(event) {
  if (event.key === 'Escape') return drawer.close();
  const typing = event.target.closest?.('input, select, textarea, dialog');
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const view = Object.keys(VIEWS)[Number(event.key) - 1];
  if (view) location.hash = `#/${view}`;
  else if (event.key === 't') nextTheme();
  else if (event.key === '?') help();
  else if (event.key === '/') {
    const search = document.querySelector('main [type="search"]');
    if (search) event.preventDefault();
    search?.focus();
  }
  return undefined;
}

begin();
