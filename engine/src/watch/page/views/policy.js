// One policy: its state, how its loading went, how much room it has, how it answers, and its last error.

import { h } from '../ui/dom.js';
import { bytes, clock, duration, micros, number } from '../ui/format.js';
import { icon } from '../ui/icons.js';
import { badge, facts, meter } from '../ui/parts.js';
import { POLICY, advice, sentence } from '../ui/words.js';

/** `open` keeps which ones are unfolded. */
export function policyCard(it, open) {
  const [tone, shape, words] = POLICY[it.state] ?? ['warn', 'question', it.state];
  const key = it.digest || it.file;
  const name = it.name || it.file;
  const marks = [badge(it.deciding ? 'good' : tone, it.deciding ? 'check' : shape, it.deciding && it.state !== 'built_in' ? 'decides' : it.deciding ? 'decides (the agent’s own)' : it.state.replaceAll('_', ' ')),
    it.shadow && badge('info', 'half', 'shadow')];
  const row = h('details', { open: open.has(key) },
    h('summary', h('span.policy-name', h('strong', name), it.version && h('span.fine', ` ${it.version}`), it.file && it.name && h('span.fine', ` · ${it.file}`)), marks,
      h('span.fine.brief', brief(it))),
    h('div.policy-body', it.about && h('p', sentence(it.about)), !it.deciding && words && h('p.fine', sentence(words)),
      error(it.last_error), stages(it.stages), headroom(it.headroom), numbers(it), parameters(it.parameters)));
  row.addEventListener('toggle', () => (row.open ? open.add(key) : open.delete(key)));
  return h('li.policy', { dataset: { policy: name, state: it.state, deciding: String(Boolean(it.deciding)) } }, row);
}

function brief(it) {
  if (it.state === 'failed' && it.last_error) return `${it.last_error.class.replaceAll('_', ' ')} at ${it.last_error.stage.replaceAll('_', ' ')}`;
  if (!it.calls) return 'not asked yet';
  return `${number(it.calls)} answers, half within ${micros(it.p50_micros)}${it.failures ? `, ${number(it.failures)} failed` : ''}`;
}

function error(failure) {
  if (!failure) return null;
  return h('div.refusal', h('p', icon('warning'), h('strong', `${failure.class.replaceAll('_', ' ')} at ${failure.stage.replaceAll('_', ' ')}: `), sentence(failure.reason)),
    failure.remedy && h('p', h('strong', 'What to do: '), advice(failure.remedy)));
}

function stages(list) {
  if (!list?.length) return null;
  return h('ol.stages', { 'aria-label': 'Stages of loading' }, list.map((it) => h(`li.${it.passed ? 'good' : 'bad'}`, icon(it.passed ? 'check' : 'cross'),
    h('span', it.stage.replaceAll('_', ' ')), h('span.fine', micros(it.micros)), h('span.visually-hidden', it.passed ? 'passed' : 'failed'))));
}

/** What the largest question of the cluster took of what is allowed. */
function headroom(it) {
  if (!it) return null;
  const [fuel, memory] = [meter('Fuel'), meter('Memory')];
  fuel.update({ now: it.fuel, limit: it.fuel_limit, warn: 0.5, bad: 0.8, shown: `${share(it.fuel, it.fuel_limit)} of the limit`, spoken: `${share(it.fuel, it.fuel_limit)} of the fuel` });
  memory.update({ now: it.memory_bytes, limit: it.memory_limit_bytes, warn: 0.5, bad: 0.8, shown: `${bytes(it.memory_bytes)} of ${bytes(it.memory_limit_bytes)}` });
  return h('div.headroom', h('p.fine', `The largest question that this cluster can ask (${number(it.nodes)} nodes, ${number(it.vms)} VMs) took ${micros(it.micros)}:`), fuel.element, memory.element);
}

const share = (part, of) => (of ? `${Math.max(1, Math.round(100 * part / of))} %` : 'unknown');

function numbers(it) {
  const shadowed = it.shadowed ?? {};
  return facts([
    ['Answers', it.calls ? `${number(it.calls)}, ${number(it.failures)} failed` : null],
    ['Time of an answer', it.p50_micros ? `half within ${micros(it.p50_micros)}, 99 of 100 within ${micros(it.p99_micros)}` : null],
    ['Last answer', it.last_fuel ? `${number(it.last_fuel)} fuel, ${bytes(it.last_memory_bytes)}` : null],
    ['Laws', it.laws_tried ? `kept on ${number(it.laws_tried)} generated questions` : null],
    ['As a shadow', shadowed.asked ? `differed in ${number(shadowed.differed)} of ${number(shadowed.asked)}` : null],
    ['Suspended', it.breaker?.tried_again_in_ms ? `tried again in ${duration(it.breaker.tried_again_in_ms)}` : null],
    ['Loaded', it.loaded_ms ? clock(it.loaded_ms) : null],
    ['Size', it.module_bytes ? bytes(it.module_bytes) : null],
    ['Digest', it.digest ? h('code', { title: it.digest }, it.digest.slice(0, 16)) : null],
  ]);
}

function parameters(list) {
  if (!list?.length) return null;
  return h('details', h('summary', `Parameters (${list.length})`), facts(list.map((it) => [it.name, [it.about, it.default !== undefined && `(default ${JSON.stringify(it.default)})`].filter(Boolean).join(' ')])));
}
