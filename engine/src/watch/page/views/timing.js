// Time-outs, and what they mean for every kind of failure, recomputed while somebody types. Nothing is changed here: time-outs
// must be the same on all nodes, so the page writes the lines for their configuration.

import { ofAgent, post } from '../api.js';
import { store } from '../state.js';
import { attribute, fill, h, show, text } from '../ui/dom.js';
import { duration } from '../ui/format.js';
import { icon } from '../ui/icons.js';
import { button, table } from '../ui/parts.js';
import { advice, sentence } from '../ui/words.js';

const KEYS = {
  beat_ms: ['Beat', 'A beat goes out, and the page on storage is written, this often.'],
  lease_ms: ['Lease', 'A node may run VMs for so long after its last proof of life, by either factor.'],
  stop_ms: ['Stop', 'After the lease no VM is left within this time, or the node is reset.'],
  watchdog_ms: ['Watchdog', 'The watchdog resets a node that did not feed it for so long.'],
  full_failure_ms: ['Full failure', 'A node that neither factor sees is evicted after this.'],
  network_isolation_ms: ['Network isolation', 'A node without the network is evicted after this.'],
  storage_isolation_ms: ['Storage isolation', 'A node without the storage is evicted after this.'],
  storage_deadline_ms: ['Storage deadline', 'A storage cycle that takes longer does not keep the lease.'],
  election_window_ms: ['Election window', 'Ballots are waited for so long.'],
  policy_deadline_ms: ['Policy deadline', 'A policy answers within this, or the agent’s own counts.'],
  start_margin_ms: ['Start margin', 'A VM is started only if the lease is good for so long.'],
  boot_grace_ms: ['Boot grace', 'A node that was never seen is not fenced before this.'],
  fence_timeout_ms: ['Fence time-out', 'A fence agent is killed after this.'],
  restart_backoff_ms: ['Restart pause', 'A VM that failed to start is tried again after this, doubled each time.'],
};
const PAUSE_MS = 120;

export function timing() {
  const inputs = new Map();
  const verdict = h('div.verdict', { role: 'status', 'aria-live': 'polite' });
  const result = h('div');
  const snippet = h('pre', { tabIndex: 0, 'aria-label': 'Lines for the configuration' });
  const give = h('div.snippet', h('p', 'Put this into steadfast.toml on every node, then restart the agents one by one. VMs keep running.'), snippet,
    button('Copy', () => navigator.clipboard?.writeText(snippet.textContent), { name: 'check' }));
  const reset = button('As in use', () => fillIn(), { tone: 'quiet' });
  const form = h('form.timing-form', Object.entries(KEYS).map(([key, [name, about]]) => row(key, name, about)));
  form.addEventListener('submit', (event) => event.preventDefault());
  const element = h('section.panel', { 'aria-labelledby': 'h-timing' }, h('div.panel-head', h('h2', { id: 'h-timing' }, 'Time-outs'), reset),
    h('p.fine', 'Try values: what each failure would cost is computed as you type, and what is not safe is refused with the reason. Nothing is changed by typing.'),
    h('div.two', form, h('div', verdict, give, result)));
  let timer = null;
  let turn = 0;
  let known = '';

  function row(key, name, about) {
    const input = h('input', { type: 'number', min: '1', step: '50', inputmode: 'numeric', id: `timing-${key}`, name: key, 'aria-describedby': `timing-${key}-about` });
    input.addEventListener('input', changed);
    inputs.set(key, input);
    return h('div.timing-row', h('label', { htmlFor: input.id }, name), h('span.with-unit', input, h('span.unit', 'ms')), h('p.hint', { id: `timing-${key}-about` }, about));
  }

  const used = () => store.state?.timing ?? {};

  function fillIn() {
    for (const [key, input] of inputs) {
      input.value = used()[key] ?? '';
      show(input.closest('.timing-row'), used()[key] !== undefined);
    }
    changed();
  }

  /** What differs from what is in use. The start margin follows from the others unless it is given. */
  function wanted() {
    const pairs = [...inputs].filter(([key, input]) => used()[key] !== undefined && input.value !== '' && Number(input.value) !== used()[key]);
    return Object.fromEntries(pairs.map(([key, input]) => [key, Number(input.value)]));
  }

  function changed() {
    for (const [key, input] of inputs) input.closest('.timing-row').classList.toggle('changed', Number(input.value) !== used()[key]);
    clearTimeout(timer);
    timer = setTimeout(check, PAUSE_MS);
  }

  async function check() {
    const mine = ++turn;
    const overrides = wanted();
    const answer = await post(ofAgent('settings/check'), { timing: overrides }).catch((problem) => problem);
    if (mine !== turn) return;
    draw(overrides, answer);
  }

  function draw(overrides, answer) {
    const count = Object.keys(overrides).length;
    if (answer instanceof Error) {
      fill(verdict, h('div.refusal', h('p', icon('warning'), sentence(answer.message), ' ', advice(answer.remedy))));
      show(give, false);
      fill(result, boundsTable(store.state?.bounds ?? []));
      return;
    }
    const bad = answer.problems ?? [];
    attribute(verdict, 'data-ok', String(answer.ok));
    fill(verdict, answer.ok ? h('p.done', icon('check'), count === 0 ? 'These are in use, and they are safe.' : 'These are safe.')
      : h('div.refusal', { role: 'alert' }, h('p', icon('warning'), h('strong', 'Refused: these are not safe.')), h('ul', bad.map((it) => h('li', sentence(it.text), it.inequality && h('code.inequality', it.inequality))))));
    for (const [key, input] of inputs) attribute(input, 'aria-invalid', bad.some((it) => `${it.text} ${it.inequality}`.includes(key.replace(/_ms$/, ''))) ? 'true' : null);
    show(give, answer.ok && count > 0);
    text(snippet, ['[timing]', ...Object.entries(overrides).map(([key, value]) => `${key} = ${value}`)].join('\n'));
    fill(result, boundsTable(answer.bounds ?? [], store.state?.bounds, answer.ok));
  }

  function update(news) {
    if (!news.all && !news.keys.has('timing') && !news.keys.has('bounds')) return;
    const key = JSON.stringify(used());
    if (key === known) return;
    known = key;
    fillIn();
  }
  return { element, update };
}

function boundsTable(bounds, before = [], ok = true) {
  const same = (it) => before.find((one) => one.failure === it.failure && one.role === it.role && one.fence_agent === it.fence_agent);
  const rows = grouped(bounds).map((it) => {
    const change = it.bound_ms && same(it)?.bound_ms ? it.bound_ms - same(it).bound_ms : 0;
    const shift = change === 0 ? null : h(`span.shift.${change < 0 ? 'less' : 'more'}`, `${change < 0 ? '−' : '+'}${duration(Math.abs(change))}`);
    const sum = h('details.sum', h('summary', it.bound_ms ? duration(it.bound_ms) : /Excluded|unstable/.test(it.failure) ? 'nothing is moved' : 'no bound', shift), h('p.fine', it.bound_ms ? it.sum : sentence(it.note)));
    return [it.failure, it.roles.size > 1 ? 'any node' : it.role, it.fences.size > 1 ? 'either way' : it.fence_agent ? 'with' : 'without', sum, it.slowest_ms ? duration(it.slowest_ms) : '–'];
  });
  const shown = table('From a failure to the start elsewhere, at worst', ['Failure', 'Of', 'Fence agent', 'At worst', 'Slow storage'], rows, { caption: true });
  shown.classList.toggle('dimmed', !ok);
  return shown;
}

/** Rows that cost the same are told as one. */
function grouped(bounds) {
  const groups = new Map();
  for (const it of bounds) {
    const key = JSON.stringify([it.failure, it.bound_ms, it.slowest_ms]);
    if (!groups.has(key)) groups.set(key, { ...it, roles: new Set(), fences: new Set() });
    groups.get(key).roles.add(it.role);
    groups.get(key).fences.add(it.fence_agent);
  }
  return [...groups.values()];
}
