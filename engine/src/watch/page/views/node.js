// One node in the side panel: how it is and why, what its death would mean, its VMs, and what can be done.

import { agent, get } from '../api.js';
import { beginMaintenance, endMaintenance } from '../actions.js';
import { store, vmsOn } from '../state.js';
import { attribute, fill, h, refill, show, text } from '../ui/dom.js';
import { age, duration, many, mebibytes, number, priority as score } from '../ui/format.js';
import { icon } from '../ui/icons.js';
import { badge, button, facts, rebadge } from '../ui/parts.js';
import { nodeAdvice, nodeSentence, sentence, status, vmState } from '../ui/words.js';
import { entry, terms } from './feed.js';
import { fateWords } from './nodecard.js';

const LISTED = 200;
const link = (vm) => h('a', { href: `#/overview/vm/${encodeURIComponent(vm.id)}` }, vm.name);

export function make(name) {
  const mark = badge('info', 'clock', '');
  const reason = h('p.reason');
  const advice = h('p.advice');
  const actions = h('div.actions');
  const figures = h('div');
  const risk = h('div');
  const priority = h('div');
  const fate = h('div');
  const vms = h('ul.rows');
  const count = h('span.count');
  const search = h('input', { type: 'search', placeholder: 'Find among its VMs', 'aria-label': `Find among the VMs of ${name}` });
  const recent = h('ol.feed', { 'aria-label': `Decisions about ${name}` });
  const element = h('div.drawer-body', mark, reason, advice, actions,
    h('section', h('h3', 'State'), figures), h('section', h('h3', 'If it died now'), fate),
    h('section', h('h3', 'Vote in the last election'), priority), h('section', h('h3', 'Risk'), risk),
    h('section', h('h3', 'VMs ', count), search, vms), h('section', h('h3', 'Decisions about it'), recent));
  let actionsFor = '';
  search.addEventListener('input', () => drawVms());
  ask();

  async function ask() {
    const plan = await get(agent`plan/${name}`).catch(() => null);
    if (plan) fill(fate, fateLists(plan));
    const told = await get(agent`explain/${name}?limit=8`).catch(() => null);
    const known = told?.decisions ?? store.decisions.filter((it) => it.node === name);
    fill(recent, [...known].reverse().slice(0, 8).map((it) => entry(it)));
  }

  function drawVms() {
    const wanted = search.value.trim().toLowerCase();
    const all = vmsOn(name).filter((vm) => vm.name.toLowerCase().includes(wanted));
    text(count, number(all.length));
    fill(vms, all.slice(0, LISTED).map((vm) => h('li', badge(vmState(vm.state)[0], vmState(vm.state)[1], vm.state), link(vm), h('span.fine', `priority ${vm.priority}, ${mebibytes(vm.memory_mib)}`))),
      all.length > LISTED && h('li.fine', `and ${number(all.length - LISTED)} more: search for them`));
  }

  function update(news) {
    const node = store.state.nodes[name];
    if (!node) return fill(element, h('p.empty', `There is no node ${name} in this cluster.`));
    if (!news.all && !news.nodes?.has(name) && !news.keys?.has('plan') && !news.keys?.has('election')) return undefined;
    const [tone, shape] = status(node.status);
    rebadge(mark, tone, shape, node.status_text || node.status);
    text(reason, nodeSentence(node));
    text(advice, nodeAdvice(node));
    show(advice, advice.textContent !== '');
    drawActions(node);
    fill(figures, stateFacts(node));
    fill(risk, riskOf(node));
    fill(priority, priorityOf(node));
    if (news.all || news.keys?.has('plan')) {
      const plan = store.state.plan?.[name];
      if (!fate.dataset.whole) fill(fate, fateLists(plan));
    }
    if (news.all || [...(news.vms ?? [])].length > 0) drawVms();
    return undefined;
  }

  function drawActions(node) {
    const key = `${Boolean(node.maintenance)}`;
    if (key === actionsFor) return;
    actionsFor = key;
    refill(actions, node.maintenance ? button('End maintenance', () => endMaintenance(node), { name: 'check', tone: 'primary' })
      : button('Maintenance', () => beginMaintenance(store.state.nodes[name]), { name: 'wrench' }));
    attribute(actions, 'data-for', name);
  }

  return { title: name, element, update };
}

function stateFacts(node) {
  const it = node.facts ?? {};
  const lease = node.lease_left === null || node.lease_left === undefined ? 'none' : age(node.lease_left);
  return facts([
    ['Network, factor 1', node.in_view ? `beat ${age(node.beat_age)} old` : `out of view; last beat ${age(node.beat_age)} ago`],
    ['Storage, factor 2', node.page_age === null || node.page_age === undefined ? 'never seen' : `page changed ${age(node.page_age)} ago`],
    ['Lease left', `${lease}${node.armed ? ', watchdog armed' : ', watchdog not armed'}`],
    ['Verification addresses', { true: 'answer', false: 'do not answer' }[node.verification] ?? 'not asked'],
    ['Memory', it.memory_mib ? `${mebibytes(it.memory_mib - it.memory_free_mib)} of ${mebibytes(it.memory_mib)} configured` : null],
    ['CPUs', it.vcpus ? `${it.vcpus_used} virtual on ${it.vcpus}; load ${((it.load_permille ?? 0) / 1_000).toFixed(1)}` : null],
    ['Storage cycle', it.storage_latency_ms === undefined ? null : duration(it.storage_latency_ms)],
    ['Flaps', it.flaps ? many(it.flaps, 'time') : null],
    ['Labels', Object.entries(it.labels ?? {}).map(([key, value]) => `${key} = ${value}`).join(', ')],
    ['Maintenance', node.maintenance && `“${node.maintenance.reason}”`],
    ['Eviction', node.eviction],
    ['Last words', node.last_words],
  ]);
}

function riskOf({ risk }) {
  if (!risk) return h('p.fine', 'Not told.');
  const { report } = risk;
  return [h('p', sentence(risk.text)), report && h('p', h('strong', `${report.score} of 1000`), ` by ${report.decider} `, terms(report.terms))];
}

function priorityOf(node) {
  const ballot = store.state.election?.ballots?.find((it) => it.node === node.id);
  if (!ballot) return h('p.fine', 'It did not vote.');
  return h('p', h('strong', score(ballot.priority)), ` by ${ballot.decider} `, terms(ballot.priority.terms));
}

/** Where each VM would go. */
function fateLists(plan) {
  if (!plan) return h('p.fine', 'Not known yet.');
  const [tone, words] = fateWords({ fits: plan.restart?.length, waits: plan.wait?.length, lacks: plan.unfit?.length, ...plan });
  const name = (id) => store.state.vms[id]?.name ?? id;
  const group = (title, list) => list?.length > 0 && h('details', h('summary', `${title} (${number(list.length)})`), h('ul.rows', list.slice(0, LISTED).map((it) => h('li', it))));
  return [h(`p.fate-line.${tone}`, icon('bolt'), sentence(words)),
    plan.headroom_mib !== undefined && h('p.fine', `The others would have ${mebibytes(plan.headroom_mib)} of memory free after that.`),
    group('Would start elsewhere', plan.restart?.map((it) => h('span', name(it.vm), ' → ', it.to))),
    group('Would wait for others', plan.wait?.map(name)), group('Would not fit anywhere', plan.unfit?.map(name))];
}
