// Policies: for each kind who decides, who else might, how they do, and ways to change that.

import { uploadPolicy, rollBack, undoRollBack, bindPolicy } from '../actions.js';
import { store } from '../state.js';
import { announce } from '../ui/announce.js';
import { refusal } from '../ui/dialog.js';
import { attribute, fill, h, show } from '../ui/dom.js';
import { ago, bytes } from '../ui/format.js';
import { icon } from '../ui/icons.js';
import { button } from '../ui/parts.js';
import { KIND, kindName, sentence } from '../ui/words.js';
import { policyCard } from './policy.js';

const LARGEST = 8 << 20;

export function make() {
  const kinds = h('div.kinds');
  const broken = h('section.panel', { 'aria-labelledby': 'h-broken' });
  const element = h('div.policies', h('h1', 'Policies'),
    h('p.lead', 'Three questions are put to WebAssembly modules that you may replace while everything runs. What they answer is checked; where one fails, the last good one is asked, then the agent’s own.'),
    kinds, broken);
  const open = new Set();
  let drawn = '';

  function update(news) {
    if (!news.all && !news.keys.has('policies')) return;
    const { policies } = store.state;
    const key = JSON.stringify(policies);
    if (key === drawn) return;
    drawn = key;
    for (const it of policies?.kinds ?? []) drawKind(it);
    drawBroken(policies?.failed ?? []);
  }

  /** A kind's section is made once: a file that is being uploaded stays where it is. */
  function drawKind(status) {
    let section = kinds.querySelector(`[data-kind="${status.kind}"]`);
    if (!section) kinds.append(section = makeKind(status.kind));
    const { parts } = section;
    fill(parts.agreement, sentence(status.agreement));
    fill(parts.warnings, status.ambiguous && h('p.note.warn', icon('question'), 'Several custom policies claim this kind, and none is bound: none of them is chosen. Bind one.'),
      status.rolled_back_from && h('p.note.info', icon('clock'), `Rolled back by an operator from ${status.rolled_back_from.slice(0, 8)}.`));
    const deciding = status.policies.find((it) => it.deciding);
    const called = (it) => `${it.name} ${it.version}`;
    const custom = status.policies.filter((it) => it.file);
    fill(parts.actions,
      deciding?.file && button('Roll back', () => rollBack(status.kind, called(deciding), deciding.digest), { name: 'clock', label: `Roll ${kindName(status.kind)} back` }),
      status.rolled_back_from && button('Take the rollback back', () => undoRollBack(status.kind), { name: 'check' }),
      custom.length > 0 && button('Bind', () => bindPolicy(status.kind, [...new Set(custom.map((it) => it.name))], status.bind), { name: 'link' }));
    fill(parts.list, [...status.policies].sort((a, b) => b.deciding - a.deciding || b.generation - a.generation).map((it) => policyCard(it, open)));
    fill(parts.shadow, shadow(status));
  }

  function drawBroken(list) {
    show(broken, list.length > 0);
    fill(broken, h('h2', { id: 'h-broken' }, 'Files that did not pass'), h('ul.policy-list', list.map((it) => policyCard({ ...it, state: 'failed' }, open))));
  }

  return { element, update };
}

function makeKind(kind) {
  const parts = { agreement: h('p.fine'), warnings: h('div'), actions: h('div.actions'), list: h('ul.policy-list'), shadow: h('div') };
  const id = `h-${kind}`;
  const section = h('section.panel.kind', { dataset: { kind }, 'aria-labelledby': id },
    h('div.panel-head', h('h2', { id }, KIND[kind] ?? kindName(kind), h('span.fine', ` ${kindName(kind)}`)), parts.actions),
    parts.agreement, parts.warnings, parts.list, parts.shadow, upload(kind));
  return Object.assign(section, { parts });
}

function shadow({ differences }) {
  if (!differences?.length) return null;
  return h('details.shadow', h('summary', `Shadow differences (${differences.length})`), h('ul.rows', [...differences].reverse().slice(0, 30).map((it) => (
    h('li', h('span.fine', ago(it.wall_ms)), h('strong', it.shadow), ' instead of ', it.decider, ': ', it.text)))));
}

/** Policies lie on every node: how the other ones took it. */
function others(answer) {
  const list = Object.entries(answer?.others ?? {});
  const left = list.filter(([, outcome]) => outcome !== 'done');
  if (list.length === 0) return (answer?.notes ?? []).join(' ');
  return left.length === 0 ? 'It is on all nodes.' : left.map(([node, outcome]) => `Not on ${node}: ${sentence(outcome)}`).join(' ');
}

/** A file is chosen or dropped, checked in all stages by the agent, and either decides or is refused with the reason. */
function upload(kind) {
  const input = h('input', { type: 'file', accept: '.wasm,application/wasm', 'aria-label': `A module for ${kindName(kind)}` });
  const outcome = h('div.outcome', { role: 'status' });
  const zone = h('div.drop', icon('upload'), h('label', h('span', 'Drop a .wasm file here, or '), h('span.pick', 'choose one'), input), outcome);
  const send = async (file) => {
    if (!file) return;
    if (file.size > LARGEST) {
      fill(outcome, refusal(new Error(`${file.name} has ${bytes(file.size)}; a policy may have at most ${bytes(LARGEST)}`)));
      return;
    }
    fill(outcome, h('p.working', h('span.spinner'), `Checking ${file.name} (${bytes(file.size)}): structure, limits, laws, rehearsal…`));
    const answer = await uploadPolicy(kind, file).catch((problem) => problem);
    input.value = '';
    if (answer instanceof Error) {
      fill(outcome, refusal(answer));
      return;
    }
    const words = `${answer?.name ?? file.name} ${answer?.version ?? ''} passed all checks.`;
    fill(outcome, h('p.done', icon('check'), h('span', words, ' ', others(answer))));
    announce(words);
  };
  input.addEventListener('change', () => send(input.files[0]));
  for (const [name, over] of [['dragover', true], ['dragleave', false], ['drop', false]]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      attribute(zone, 'data-over', over);
      if (name === 'drop') send(event.dataTransfer.files[0]);
    });
  }
  return zone;
}
