// Questions to the operator. Every change is confirmed in words of what will happen, and its outcome is told here and stays readable.

import { append, fill, h } from './dom.js';
import { icon } from './icons.js';
import { button, field } from './parts.js';
import { advice, sentence } from './words.js';

function open(title, body, actions, tone = '') {
  const before = document.activeElement;
  const dialog = h(`dialog.dialog${tone ? `.${tone}` : ''}`, { 'aria-labelledby': 'dialog-title' });
  append(dialog, [h('form', { method: 'dialog' }, h('h2', { id: 'dialog-title' }, title), body, actions)]);
  dialog.addEventListener('close', () => {
    dialog.remove();
    // What was pressed may have been replaced by what is to be pressed next.
    const again = before?.isConnected ? before : document.querySelector('#drawer:not([hidden]) h2, #main');
    again?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Asks before a change, does it, and tells the outcome.
 * `happens`: what will happen, a sentence each. `fields`: inputs by name. `act(values)`: does it, and returns what to say.
 */
export function confirm({ title, happens, fields = [], verb, tone = '', act }) {
  return new Promise((resolve) => {
    const outcome = h('div.outcome', { role: 'status' });
    const go = button(verb, null, { tone: tone === 'danger' ? 'danger' : 'primary', type: 'submit' });
    const cancel = button('Cancel', () => dialog.close());
    const list = h('ul.happens', happens.map((it) => h('li', it)));
    const inputs = fields.map(({ name, label, hint, input }) => [name, field(label, input, hint)]);
    const dialog = open(title, [list, inputs.map(([, it]) => it), outcome], h('div.actions', cancel, go), tone);
    const values = () => Object.fromEntries(fields.map(({ name, input }) => [name, input.type === 'checkbox' ? input.checked : input.value]));
    let done = false;
    dialog.addEventListener('close', () => resolve(done));
    dialog.querySelector('form').addEventListener('submit', async (event) => {
      event.preventDefault();
      if (done) return dialog.close();
      go.disabled = true;
      fill(outcome, h('p.working', h('span.spinner'), 'Asking the leader…'));
      const said = await act(values()).catch((problem) => problem);
      go.disabled = false;
      if (said instanceof Error) return fill(outcome, refusal(said));
      done = true;
      fill(outcome, h('p.done', icon('check'), said || 'Done.'));
      for (const { input } of fields) input.disabled = true;
      go.replaceChildren('Close');
      cancel.hidden = true;
      go.focus();
      toast(said || 'Done.', 'good');
    });
    (fields[0]?.input ?? (tone === 'danger' ? cancel : go)).focus();
  });
}

/** Tells something that nobody has to answer. */
export function tell(title, body) {
  open(title, body, h('div.actions', button('Close', null, { tone: 'primary', type: 'submit' })));
}

/** A refusal, with what to do. */
export function refusal(problem) {
  return h('div.refusal', { role: 'alert' },
    h('p', icon('warning'), h('strong', 'Not done. '), sentence(problem.message)),
    problem.remedy && h('p', h('strong', 'What to do: '), advice(problem.remedy)));
}

export function toast(words, tone = 'info') {
  const shown = h(`div.toast.${tone}`, icon(tone === 'good' ? 'check' : 'warning'), h('span', words));
  const box = document.getElementById('toasts');
  box.append(shown);
  setTimeout(() => shown.remove(), tone === 'bad' ? 15_000 : 6_000);
}

/** A token, or nothing. */
export function askToken() {
  return new Promise((resolve) => {
    const input = h('input', { type: 'password', autocomplete: 'off', required: true });
    const body = [h('p', 'This HA-watch wants to know who you are. The token stays in this tab only.'), field('Token', input)];
    const dialog = open('Sign in', body, h('div.actions', button('Sign in', null, { tone: 'primary', type: 'submit' })));
    dialog.addEventListener('close', () => resolve(input.value.trim()));
    input.focus();
  });
}

const KEYS = [
  ['1 … 6', 'the six views'],
  ['/', 'search'],
  ['arrow keys', 'move among nodes, VMs or rows'],
  ['Enter', 'open what is focused'],
  ['Esc', 'close the side panel or a question'],
  ['t', 'dark, light, or as the system'],
  ['?', 'this help'],
];

export function help() {
  const rows = KEYS.map(([key, what]) => h('div', h('dt', h('kbd', key)), h('dd', what)));
  const body = [
    h('dl.keys', rows),
    h('h3', 'Reading it'),
    h('p', 'Each node proves that it is alive by two factors: its beat on the control network, and its page on shared storage. It may run VMs as long '
      + 'as its lease lasts, and either factor renews it. VMs of a node are started elsewhere only when it is proved that they run there no more.'),
  ];
  tell('Help', body);
}
