// One node as a column: status, both factors, the lease, and its VMs as chips.

import { store, vmsOn } from '../state.js';
import { attribute, h, show, sync, text } from '../ui/dom.js';
import { mebibytes, number, priority } from '../ui/format.js';
import { icon, redraw } from '../ui/icons.js';
import { badge, meter, rebadge } from '../ui/parts.js';
import { isGood, nodeSentence, status, vmState } from '../ui/words.js';

const href = (kind, name) => `#/overview/${kind}/${encodeURIComponent(name)}`;

export function make(name) {
  const parts = {
    badge: badge('info', 'clock', ''),
    reason: h('p.reason'),
    network: meter('Network'),
    storage: meter('Storage'),
    lease: meter('Lease left'),
    priority: h('dd'), risk: h('dd'), load: h('dd'), memory: h('dd'),
    fate: h('a.fate', { href: href('node', name) }, icon('bolt'), h('span')),
    chips: h('ul.chips', { 'aria-label': `VMs on ${name}` }),
    more: h('a.more', { href: href('node', name) }),
    none: h('p.none', 'no VMs'),
    count: h('span.count'),
  };
  const fact = (label, value, title) => h('div', { title }, h('dt', label), value);
  const element = h('article.node', { dataset: { node: name }, 'aria-label': `Node ${name}` },
    h('header', h('h3', h('a', { href: href('node', name) }, name)), parts.badge),
    parts.reason,
    h('div.meters', parts.network.element, parts.storage.element, parts.lease.element),
    h('dl.numbers',
      fact('Priority', parts.priority, 'its vote for itself in the last election'),
      fact('Risk', parts.risk, 'what its risk policy expects of its equipment: 0 healthy, 1000 failing'),
      fact('Load', parts.load, 'load average of a minute, per CPU'),
      fact('RAM', parts.memory, 'memory configured for VMs, of what they may use')),
    parts.fate,
    h('div.vm-head', h('span', 'VMs'), parts.count), parts.chips, parts.more, parts.none);
  return Object.assign(element, { parts });
}

/** Everything but the chips. */
export function update(card, node) {
  const { parts } = card;
  const [tone, shape] = status(node.status);
  rebadge(parts.badge, tone, shape, node.status_text || node.status);
  if (card.dataset.tone !== tone) card.dataset.tone = tone;
  card.classList.toggle('leader', node.status === 'Leader');
  const sentence = isGood(node) ? '' : nodeSentence(node);
  text(parts.reason, sentence);
  show(parts.reason, sentence !== '');
  meters(parts, node);
  numbers(parts, node);
  fate(parts.fate, store.state.plan?.[node.name]);
  show(parts.fate, tone !== 'bad' && Boolean(store.state.plan));
}

function meters(parts, node) {
  const timing = store.state.timing ?? {};
  const lease = timing.lease_ms ?? 5_000;
  const seen = (what, now) => (now === null || now === undefined ? `never seen by ${what}` : `${(now / 1_000).toFixed(1)} seconds ago by ${what}`);
  parts.network.update({ now: node.beat_age, limit: lease, warn: 0.4, bad: 0.8, spoken: seen('network', node.beat_age), title: 'Factor 1: age of its last beat on the control network' });
  parts.storage.update({ now: node.page_age, limit: lease, warn: 0.5, bad: 0.85, spoken: seen('storage', node.page_age), title: 'Factor 2: age of its page on shared storage' });
  parts.lease.update({
    now: node.lease_left, limit: lease, warn: 0.35, bad: 0.15, falling: true, unknown: 'none',
    title: 'How long it may still run VMs if neither factor is renewed; by its own word',
  });
}

function numbers(parts, node) {
  const ballot = store.state.election?.ballots?.find((it) => it.node === node.id);
  text(parts.priority, ballot ? priority(ballot.priority) : '–');
  const facts = node.facts ?? {};
  const risk = node.risk?.report?.score ?? null;
  text(parts.risk, risk === null ? '–' : risk);
  const level = node.risk?.level ?? 'calm';
  attribute(parts.risk, 'data-tone', level === 'calm' ? null : level === 'warn' ? 'warn' : 'bad');
  text(parts.load, facts.vcpus ? `${Math.round((facts.load_permille ?? 0) / 10 / facts.vcpus)} %` : '–');
  const used = (facts.memory_mib ?? 0) - (facts.memory_free_mib ?? 0);
  text(parts.memory, facts.memory_mib ? `${Math.round(100 * used / facts.memory_mib)} %` : '–');
  attribute(parts.memory, 'title', facts.memory_mib ? `${mebibytes(used)} of ${mebibytes(facts.memory_mib)}` : null);
}

/** What would happen if it died now, in a line. */
export function fateWords(plan) {
  if (!plan) return ['off', 'not known yet'];
  if (plan.vms === 0) return ['off', 'nothing to restart'];
  const { fits = 0, waits = 0, lacks = 0 } = plan;
  const said = [fits === plan.vms ? (fits === 1 ? 'its VM fits elsewhere' : `all ${number(fits)} fit elsewhere`) : `${number(fits)} fit`,
    waits > 0 && `${number(waits)} would wait`, lacks > 0 && `${number(lacks)} do not fit`].filter(Boolean);
  return [lacks > 0 ? 'bad' : waits > 0 ? 'warn' : 'good', said.join(', ')];
}

function fate(element, plan) {
  const [tone, said] = fateWords(plan);
  attribute(element, 'data-tone', tone);
  text(element.lastChild, `If it died now: ${said.replace(' elsewhere', '')}`);
}

/** The chips, at most `cap` of them; `wanted(vm)` filters. How many match. */
export function chips(card, name, cap, wanted) {
  const { parts } = card;
  const all = vmsOn(name);
  const matching = wanted ? all.filter(wanted) : all;
  const shown = matching.slice(0, cap);
  sync(parts.chips, shown, (vm) => vm.id, chip, drawChip);
  const rest = matching.length - shown.length;
  text(parts.more, rest > 0 ? `+ ${number(rest)} more` : '');
  show(parts.more, rest > 0);
  show(parts.none, all.length === 0);
  text(parts.count, wanted ? `${number(matching.length)} of ${number(all.length)}` : number(all.length));
  return matching.length;
}

function chip(vm) {
  return h('li', { dataset: { vm: vm.id } }, h('a.chip', { href: href('vm', vm.id) }, icon('play'), h('span.chip-name', vm.name), h('span.visually-hidden')));
}

function drawChip(element, vm) {
  const link = element.firstChild;
  const [tone, shape] = vm.migrating_to ? ['info', 'move'] : vmState(vm.state);
  if (link.dataset.tone !== tone) link.dataset.tone = tone;
  redraw(link.firstChild, shape);
  text(link.childNodes[1], vm.name);
  const state = vm.migrating_to ? `moving to ${vm.migrating_to.name}` : vm.state;
  text(link.lastChild, `, ${state}`);
  attribute(link, 'title', [`${vm.name}: ${state}`, vm.reason, `priority ${vm.priority}, ${mebibytes(vm.memory_mib)}`].filter(Boolean).join('\n'));
}

/** The chip of a VM, if this card shows it. */
export function chipOf(card, id) {
  return card?.parts.chips.known?.get(id)?.firstChild;
}
