// The cluster at a glance: how it is, every node as a column, and what was decided last.

import { store } from '../state.js';
import { disarmAll, enableVm } from '../actions.js';
import { attribute, h, show, sync, text } from '../ui/dom.js';
import { duration, many, number } from '../ui/format.js';
import { icon, redraw } from '../ui/icons.js';
import { fly, glow, place } from '../ui/motion.js';
import { button } from '../ui/parts.js';
import { isGood, nodeSentence, status, vmState } from '../ui/words.js';
import { feed } from './feed.js';
import * as card from './nodecard.js';

// Chips of a node; with many nodes fewer, so that the page stays small.
const CHIPS = { few: 40, many: 12 };
const MANY_NODES = 12;
// VMs whose moves are shown at once.
const WATCHED = 30;

export function make() {
  const search = h('input', { type: 'search', placeholder: 'Find a VM or node', 'aria-label': 'Find a VM or node', autocomplete: 'off', spellcheck: 'false' });
  const troubled = h('input', { type: 'checkbox', id: 'troubled' });
  const found = h('span.found', { role: 'status' });
  const grid = h('div.nodes');
  const health = summary();
  const latest = feed();
  const bar = h('div.toolbar', h('div.search', icon('search'), search), h('label.check', { htmlFor: 'troubled' }, troubled, h('span', 'Only with problems')), found,
    h('span.spacer'), button('Protect a VM', enableVm, { name: 'shield' }), button('Disarm', disarmAll, { name: 'unshield', tone: 'quiet' }));
  const element = h('div.overview', h('h1.visually-hidden', 'Overview'), health.element,
    h('div.with-rail', h('section', { 'aria-label': 'Nodes' }, bar, grid), latest.element));
  const cards = new Map();

  const query = () => search.value.trim().toLowerCase();
  const matcher = () => {
    const wanted = query();
    return wanted === '' ? null : (vm) => vm.name.toLowerCase().includes(wanted) || vm.id === wanted;
  };

  // With many nodes only those in sight are drawn; the others are drawn when they come into sight.
  const inSight = new Set();
  const later = new Set();
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const { node } = target.dataset;
      if (!isIntersecting) inSight.delete(node);
      else {
        inSight.add(node);
        if (later.delete(node) && store.state?.nodes[node]) drawCard(node);
      }
    }
  }, { rootMargin: '200px' });

  const isSeen = (name) => element.dataset.size === 'few' || inSight.has(name);

  function drawCard(name) {
    card.update(cards.get(name), store.state.nodes[name]);
    drawChips([name]);
  }

  function drawCards() {
    element.dataset.size = store.order.length <= MANY_NODES ? 'few' : 'many';
    const names = troubled.checked ? store.order.filter((name) => !isGood(store.state.nodes[name])) : store.order;
    sync(grid, names, (name) => name, card.make);
    for (const it of grid.children) {
      if (cards.get(it.dataset.node) !== it) sight.observe(it);
      cards.set(it.dataset.node, it);
    }
    for (const name of cards.keys()) if (cards.get(name).parentNode !== grid) cards.delete(name);
    for (const name of names) card.update(cards.get(name), store.state.nodes[name]);
    drawChips(names);
  }

  function drawChips(names) {
    const [wanted, asked] = [matcher(), query()];
    const cap = element.dataset.size === 'few' ? CHIPS.few : CHIPS.many;
    let total = 0;
    for (const name of names) {
      const it = cards.get(name);
      if (!it) continue;
      const isNamed = asked !== '' && name.toLowerCase().includes(asked);
      const matching = card.chips(it, name, cap, isNamed ? null : wanted);
      show(it, asked === '' || isNamed || matching > 0);
      total += matching;
    }
    if (names.length === cards.size || asked === '') text(found, asked ? `${many(total, 'VM')} found` : '');
  }

  let asked = null;
  const soon = (draw) => {
    if (!asked) requestAnimationFrame(() => {
      const wanted = asked;
      asked = null;
      if (store.state) wanted();
    });
    asked = asked === drawCards ? drawCards : draw;
  };
  search.addEventListener('input', () => soon(() => drawChips([...cards.keys()])));
  troubled.addEventListener('change', () => soon(drawCards));

  function update(news) {
    latest.update(news);
    if (news.all || news.keys.size > 0 || news.nodes.size > 0 || news.vms.size > 0) health.update();
    const others = news.nodes.size > 0 && !troubled.checked && (cards.size !== store.order.length || store.order.some((name) => !cards.has(name)));
    if (news.all || others) return drawCards();
    const whole = news.keys.has('plan') || news.keys.has('election') || news.keys.has('timing');
    for (const name of whole ? store.order : news.nodes) {
      if (!cards.has(name) || !store.state.nodes[name]) continue;
      if (isSeen(name)) card.update(cards.get(name), store.state.nodes[name]);
      else later.add(name);
    }
    if (troubled.checked && news.nodes.size > 0) soon(drawCards);
    if (news.vms.size > 0) moveChips(news);
    return undefined;
  }

  /** Chips of the nodes whose VMs changed; those that moved are seen to. */
  function moveChips(news) {
    const find = (id) => card.chipOf(cards.get(store.state.vms[id]?.owner?.name), id);
    const before = [...news.moved].slice(0, WATCHED).map(([id, from]) => [id, place(card.chipOf(cards.get(from), id)) ?? place(cards.get(from)?.parts.more)]);
    const names = new Set(news.moved.values());
    for (const id of news.vms) names.add(store.state.vms[id]?.owner?.name);
    for (const name of names) if (cards.has(name) && !isSeen(name)) later.add(name);
    drawChips([...names].filter((name) => cards.has(name) && isSeen(name)));
    fly(before.filter(([, from]) => from).map(([id, from]) => [find(id), from]));
    for (const id of [...news.vms].slice(0, WATCHED)) if (!news.moved.has(id) && store.state.vms[id]?.state !== 'running') glow(find(id));
  }

  return { element, update, hide: () => sight.disconnect() };
}

/** How it is, in a sentence and a few numbers. */
function summary() {
  const mark = icon('check');
  const sentence = h('p.health-text');
  const detail = h('p.health-detail');
  const figure = (label, title) => {
    const [value, note] = [h('dd.value'), h('dd.note')];
    return { element: h('div.figure', { title }, h('dt', label), value, note), value, note };
  };
  const nodes = figure('Nodes in order');
  const vms = figure('VMs running');
  const leader = figure('Leader');
  const bound = figure('Failover, at worst', 'From the failure of a node to the start of its VMs elsewhere, proved from the time-outs in use');
  const element = h('section.health', { 'aria-label': 'How the cluster is' },
    h('div.health-words', h('span.health-mark', mark), h('div', sentence, detail)),
    h('dl.figures', [nodes, vms, leader, bound].map((it) => it.element)));
  function update() {
    const { state } = store;
    const all = Object.values(state.nodes);
    const bad = all.filter((node) => !isGood(node));
    const [tone, shape, words, more] = health(state, bad);
    attribute(element, 'data-tone', tone);
    redraw(mark, shape);
    text(sentence, words);
    text(detail, more);
    show(detail, Boolean(more));
    text(nodes.value, `${all.length - bad.length} / ${all.length}`);
    text(nodes.note, state.quorate === false ? 'no majority' : `majority is ${Math.floor(all.length / 2) + 1}`);
    const { total } = store;
    const running = store.counts.get('running') ?? 0;
    text(vms.value, `${number(running)} / ${number(total)}`);
    text(vms.note, others(total));
    text(leader.value, state.leader?.name ?? 'none');
    text(leader.note, `term ${number(state.term ?? 0)}`);
    const worst = [true, false].map((fenced) => worstBound(state.bounds, fenced));
    text(bound.value, worst.map((it) => (it ? duration(it.bound_ms) : 'no bound')).join(' / '));
    text(bound.note, 'with / without a fence agent');
  }
  return { element, update };
}

function health(state, bad) {
  const down = bad.filter((node) => status(node.status)[0] === 'bad');
  const unwell = [...store.counts].filter(([name, count]) => count > 0 && !['running', 'stopped'].includes(name));
  const count = unwell.reduce((sum, [, more]) => sum + more, 0);
  const said = count > 0 ? `${many(count, 'VM')} ${count === 1 ? 'is' : 'are'} not running yet: ${unwell.map(([name, more]) => `${number(more)} ${name}`).join(', ')}.` : '';
  const detail = bad.length === 1 ? nodeSentence(bad[0]) : '';
  if (down.length > 0) {
    const who = down.length === 1 ? `${down[0].name}: ${down[0].status}` : `${down.length} nodes are down`;
    return ['bad', 'cross', `${who}. ${said || 'Every protected VM runs.'}`, detail];
  }
  if (state.disarm && !state.disarm.pending) return ['warn', 'unshield', 'High availability is switched off.', state.disarm.reason];
  if (unwell.some(([name]) => vmState(name)[0] === 'bad')) return ['bad', 'cross', said, ''];
  if (bad.length > 0) {
    const who = bad.length === 1 ? `${bad[0].name}: ${bad[0].status}` : `${bad.length} nodes need a look`;
    return ['warn', 'warning', `${who}. ${said || 'Every protected VM runs.'}`, detail];
  }
  if (!state.leader) return ['warn', 'crown', 'There is no leader now.', said];
  if (count > 0) return ['info', 'half', said, ''];
  const fits = Object.values(state.plan ?? {}).every((plan) => !plan.lacks);
  return ['good', 'check', 'Everything is in good order.', state.plan
    ? (fits ? 'Any one node may fail now: all of its VMs fit elsewhere.' : 'Not every node may fail now: some VMs would find no place.') : ''];
}

function others(total) {
  const list = [...store.counts].filter(([name, count]) => count > 0 && name !== 'running');
  if (total === 0) return 'none is protected';
  return list.length === 0 ? 'all of them' : list.map(([name, count]) => `${number(count)} ${name}`).join(', ');
}

/** The longest of a dead node. */
function worstBound(bounds = [], fenced) {
  const counted = bounds.filter((it) => Boolean(it.bound_ms) && it.fence_agent === fenced && /full failure/i.test(it.failure));
  return counted.reduce((worst, it) => (worst && worst.bound_ms >= it.bound_ms ? worst : it), null);
}
