// The side panel: one node or one VM, beside the overview. It follows the address, so the browser's Back closes it.

import { attribute, fill, h, show } from '../ui/dom.js';
import { button } from '../ui/parts.js';
import * as node from './node.js';
import * as vm from './vm.js';

const KINDS = { node, vm };
const box = () => document.getElementById('drawer');
let open = null;
let before = null;

/** `['node', 'n1']`, or nothing. */
export function route([kind, name]) {
  if (!KINDS[kind] || !name) return hide();
  if (open?.kind === kind && open.name === name) return undefined;
  if (!open) before = document.activeElement?.getAttribute?.('href');
  open = { kind, name, ...KINDS[kind].make(name) };
  const head = h('div.drawer-head', h('h2', { id: 'drawer-title', tabIndex: -1 }, open.title), button('', close, { name: 'close', label: 'Close the side panel', tone: 'quiet' }));
  fill(box(), head, open.element);
  attribute(box(), 'aria-labelledby', 'drawer-title');
  show(box(), true);
  document.body.classList.add('with-drawer');
  head.firstChild.focus({ preventScroll: true });
  return open.update({ all: true });
}

export function update(news) {
  open?.update(news);
}

export function close() {
  if (open) location.hash = '#/overview';
}

function hide() {
  if (!open) return;
  open = null;
  show(box(), false);
  document.body.classList.remove('with-drawer');
  // Back to where the person was; chips are made anew at times.
  const again = before && document.querySelector(`a[href="${CSS.escape(before)}"]`);
  again?.focus({ preventScroll: true });
}
