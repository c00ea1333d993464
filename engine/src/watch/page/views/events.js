// History: every decision that HA-watch kept, searchable.

import { get, ofCluster } from '../api.js';
import { store } from '../state.js';
import { fill, h, show, text } from '../ui/dom.js';
import { many } from '../ui/format.js';
import { icon } from '../ui/icons.js';
import { button, field } from '../ui/parts.js';
import { advice, decisionKind, sentence } from '../ui/words.js';
import { entry } from './feed.js';

const PAGE = 100;
const KINDS = ['suspected', 'status', 'election', 'elected', 'deposed', 'evicted', 'fence_ordered', 'fenced', 'proved', 'admitted', 'decided', 'waiting', 'start_ordered',
  'start_refused', 'start_failed', 'vm_running', 'vm_exited', 'vm_stopped', 'lease', 'reset', 'last_words', 'enrolment', 'membership', 'wish', 'vm_failed', 'migration',
  'maintenance', 'risk', 'disarm', 'policy', 'alarm'];
const SINCE = [[0, 'at any time'], [3_600_000, 'in the last hour'], [86_400_000, 'in the last day'], [7 * 86_400_000, 'in the last week']];

export function make() {
  const words = h('input', { type: 'search', placeholder: 'words in it', autocomplete: 'off' });
  const kind = h('select', h('option', { value: '' }, 'all kinds'), KINDS.map((it) => h('option', { value: it }, decisionKind(it))));
  const node = h('select', h('option', { value: '' }, 'all nodes'), store.order.map((it) => h('option', { value: it }, it)));
  const vm = h('input', { type: 'search', placeholder: 'name', autocomplete: 'off' });
  const since = h('select', SINCE.map(([ms, label]) => h('option', { value: String(ms) }, label)));
  const form = h('form.filters', { role: 'search', 'aria-label': 'History' }, field('Words', words), field('Kind', kind), field('Node', node), field('VM', vm), field('When', since));
  const said = h('p.fine', { role: 'status' });
  const list = h('ol.feed.long', { 'aria-label': 'Events, the newest first' });
  const older = button('Older', () => load(false), { name: 'clock' });
  const fresh = button('', () => load(true), { tone: 'primary', name: 'enter' });
  const element = h('div.events', h('h1', 'Events'), form, said, fresh, h('section.panel', { 'aria-label': 'Found' }, list, older));
  let oldest = null;
  let timer = null;
  let turn = 0;
  let missed = 0;
  form.addEventListener('input', soon);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    load(true);
  });
  show(fresh, false);

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(() => load(true), 200);
  }

  function query() {
    const wanted = { q: words.value.trim(), kind: kind.value, node: node.value, vm: vm.value.trim(), limit: PAGE };
    if (Number(since.value) > 0) wanted.since = Date.now() - Number(since.value);
    return Object.entries(wanted).filter(([, value]) => value !== '');
  }

  async function load(anew) {
    const mine = ++turn;
    const wanted = query();
    if (!anew && oldest !== null) wanted.push(['before', oldest]);
    const found = await get(ofCluster(`events?${new URLSearchParams(wanted)}`)).catch((problem) => problem);
    if (mine !== turn) return;
    if (found instanceof Error) {
      text(said, `${sentence(found.message)} ${advice(found.remedy)}`);
      return;
    }
    if (anew) {
      fill(list);
      missed = 0;
      show(fresh, false);
    }
    for (const it of found) list.append(entry(it));
    oldest = found.at(-1)?.wall_ms ?? oldest;
    show(older, found.length === PAGE);
    text(said, list.childNodes.length === 0 ? 'Nothing was found. Fewer words find more.' : `${many(list.childNodes.length, 'event')}${found.length === PAGE ? ', and there are older ones' : ''}.`);
  }

  /** New ones do not push away what somebody reads: a button brings them. */
  function update(news) {
    if (news.all || news.decisions.length === 0) return;
    if (scrollY < 120 && !query().some(([key]) => key === 'q' || key === 'vm')) {
      soon();
      return;
    }
    missed += news.decisions.length;
    fill(fresh, icon('enter'), h('span', `${many(missed, 'new event')}: show`));
    show(fresh, true);
  }

  function showWith(rest, params) {
    for (const [name, input] of Object.entries({ q: words, kind, node, vm })) if (params.has(name)) input.value = params.get(name);
    load(true);
  }
  return { element, update, show: showWith };
}
