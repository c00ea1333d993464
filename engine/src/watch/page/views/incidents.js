// What went wrong, from the first sign to the last VM that ran again: a timeline with milestones, each explained.

import { agent, get, ofCluster } from '../api.js';
import { store } from '../state.js';
import { attribute, fill, h, show, sync, text } from '../ui/dom.js';
import { clock, duration, many, names, percent } from '../ui/format.js';
import { badge, rebadge, table } from '../ui/parts.js';
import { SEVERITY, decisionKind, sentence } from '../ui/words.js';
import * as alarms from './alarms.js';
import { entry } from './feed.js';

export function make() {
  const list = h('ol.incident-list', { 'aria-label': 'Incidents' });
  const none = h('p.empty', 'No incident is known. May it stay so.');
  const detail = h('section.panel.incident', { 'aria-live': 'off' });
  const numbers = h('div');
  const warnings = alarms.make();
  const element = h('div.incidents', h('h1', 'Incidents'), warnings.element,
    h('div.two.uneven', h('section', { 'aria-label': 'All incidents' }, none, list), h('div', detail, h('section.panel', { 'aria-labelledby': 'h-availability' }, h('h2', { id: 'h-availability' }, 'Availability, last 30 days'), numbers))));
  let chosen = null;
  // Until somebody picks one, the one that matters most is shown.
  let picked = false;
  availability(numbers);

  function update(news) {
    warnings.update(news);
    if (!news.all && news.incidents.size === 0) return;
    const all = [...store.incidents.values()].sort((a, b) => isOpen(b) - isOpen(a) || b.opened_wall_ms - a.opened_wall_ms);
    sync(list, all, (it) => it.id, makeRow, drawRow);
    show(none, all.length === 0);
    const before = chosen;
    if (!picked) chosen = all[0]?.id ?? null;
    mark();
    if (chosen !== null && (chosen !== before || news.all || news.incidents.has(chosen))) draw(store.incidents.get(chosen));
  }

  function mark() {
    for (const row of list.children) attribute(row.firstChild, 'aria-current', row.dataset.id === String(chosen) ? 'true' : null);
  }

  /** What the list knows at once, then the whole. */
  async function draw(brief) {
    if (!brief) return fill(detail, h('p.empty', 'This incident is not known any more.'));
    story(detail, brief);
    if (brief.milestones) return undefined;
    const whole = await get(ofCluster(`incidents/${brief.id}`)).catch(() => null);
    if (whole && chosen === whole.id) story(detail, whole);
    return undefined;
  }

  function go([id]) {
    if (id === undefined) return;
    chosen = Number(id);
    picked = true;
    mark();
    draw(store.incidents.get(chosen) ?? { id: chosen, title: '…', opened_wall_ms: Date.now() });
  }

  return { element, update, show: go };
}

const isOpen = (it) => (it.closed_wall_ms ? 0 : 1);
const severity = (it) => SEVERITY[it.severity] ?? SEVERITY.warning;

function makeRow(it) {
  return h('li', { dataset: { id: it.id } }, h('a.incident-row', { href: `#/incidents/${it.id}` }, badge('info', 'clock', ''), h('strong'), h('span.fine')));
}

function drawRow(row, it) {
  const [mark, title, when] = row.firstChild.children;
  const open = !it.closed_wall_ms;
  rebadge(mark, open ? severity(it)[0] : 'off', open ? severity(it)[1] : 'check', open ? 'open' : 'over');
  text(title, it.title);
  text(when, `${clock(it.opened_wall_ms)}${open ? '' : `, ${duration(it.closed_wall_ms - it.opened_wall_ms)}`}${it.vms?.length ? `, ${many(it.vms.length, 'VM')}` : ''}`);
}

function story(box, it) {
  const begin = it.milestones?.[0]?.at_wall_ms ?? it.opened_wall_ms;
  fill(box,
    h('h2', it.title),
    h('p.incident-facts', [it.node && `node ${it.node}`, it.vms?.length > 0 && names(it.vms.map(vmName), 6), clock(it.opened_wall_ms),
      it.closed_wall_ms ? `over after ${duration(it.closed_wall_ms - it.opened_wall_ms)}` : 'still open'].filter(Boolean).join(' · ')),
    it.summary && h('p', sentence(it.summary)),
    h('ol.timeline', (it.milestones ?? []).map((step, at) => milestone(step, begin, it.milestones[at - 1]))));
}

const vmName = (vm) => (typeof vm === 'string' ? store.state?.vms[vm]?.name ?? vm : vm.name);

function milestone(step, begin, before) {
  const passed = step.at_wall_ms - begin;
  const wait = before ? step.at_wall_ms - before.at_wall_ms : 0;
  const why = step.decision_id && h('button.linklike', { type: 'button' }, 'Why?');
  const more = h('ol.feed', { hidden: true, 'aria-label': 'The decision behind it' });
  why && why.addEventListener('click', async () => {
    show(more, more.hidden);
    attribute(why, 'aria-expanded', String(!more.hidden));
    if (more.hidden || more.childNodes.length > 0) return;
    const known = store.decisions.find((one) => one.id === step.decision_id);
    const told = known ? { decisions: [known] } : await get(agent`explain/${step.decision_id}`).catch((problem) => ({ problem }));
    fill(more, told.problem ? h('li', sentence(told.problem.message)) : told.decisions.filter((one) => one.id === step.decision_id).map((one) => entry(one, { open: true })));
  });
  return h('li', { dataset: { name: step.name } }, h('span.milestone-time', { title: clock(step.at_wall_ms, true) }, passed === 0 ? 'start' : `+ ${duration(passed)}`),
    h('div', h('strong', decisionKind(step.name)), wait > 1_000 && h('span.fine', `${duration(wait)} later`), h('p', sentence(step.text)), why, more));
}

async function availability(box) {
  const since = Date.now() - 30 * 86_400_000;
  const told = await get(ofCluster(`availability?since=${since}`)).catch(() => null);
  if (!told) return fill(box, h('p.fine', 'HA-watch has no figures yet.'));
  const nodes = Object.entries(told.nodes ?? {}).sort(([, a], [, b]) => a.up_ppm - b.up_ppm).slice(0, 20).map(([name, it]) => [name, percent(it.up_ppm), it.down_ms ? duration(it.down_ms) : '–', it.flaps || '–']);
  const vms = Object.values(told.vms ?? {}).sort((a, b) => a.up_ppm - b.up_ppm).slice(0, 20).map((it) => [it.name, percent(it.up_ppm), it.down_ms ? duration(it.down_ms) : '–', it.failovers || '–']);
  return fill(box, table('Nodes', ['Node', 'Up', 'Down for', 'Flaps'], nodes), vms.length > 0 && table('VMs, the worst first', ['VM', 'Up', 'Down for', 'Failovers'], vms));
}
