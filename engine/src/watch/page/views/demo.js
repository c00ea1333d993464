// The demo's bar: break something, and watch.

import { get, post } from '../api.js';
import { toast } from '../ui/dialog.js';
import { attribute, fill, h, sync, text } from '../ui/dom.js';
import { button } from '../ui/parts.js';
import { sentence } from '../ui/words.js';

const AGAIN_MS = 1_500;
let told = { nodes: {} };

// What can be done to a node: when it is as on the left, or as on the right.
const WAYS = [
  ['up', ['kill', 'Kill', 'its power is cut'], ['boot', 'Boot', 'it boots']],
  ['network', ['cut', 'Cut', 'its network is cut'], ['join', 'Join', 'its network is back']],
  ['storage', ['stall', 'Stall', 'its storage stalls'], ['heal', 'Heal', 'its storage is back']],
];

export function begin(box) {
  const rows = h('ul.demo-nodes');
  const folder = h('span.fine');
  const all = button('Stall all storage', () => act('/v1/demo/storage/stall', 'The storage stalls for everybody.'), { tone: 'quiet' });
  const heal = button('Heal everything', () => act('/v1/demo/heal', 'Everything is repaired.'), { name: 'check' });
  const bar = h('details.demo', { open: innerWidth > 700 }, h('summary', h('strong', 'Demo'), h('span', ' Break something, and watch what happens.')),
    h('div.demo-body', rows, h('div.actions', all, heal), folder));
  fill(box, bar);

  async function look() {
    told = await get('/v1/demo').catch(() => told);
    const names = Object.keys(told.nodes ?? {});
    sync(rows, names, (name) => name, makeRow, drawRow);
    if (told.folder) text(folder, `Policies dropped into ${told.folder} are used at once.`);
  }

  async function act(path, words) {
    const answer = await post(path).catch((problem) => problem);
    if (answer instanceof Error) toast(sentence(answer.message), 'bad');
    else toast(words, 'good');
    look();
  }

  function makeRow(name) {
    const buttons = WAYS.map(([key, bad, good]) => {
      const it = button('', () => {
        const [verb, , means] = isWell(told.nodes[name], key) ? bad : good;
        act(`/v1/demo/nodes/${encodeURIComponent(name)}/${verb}`, `${name}: ${means}.`);
      });
      return it;
    });
    return h('li', { dataset: { node: name } }, h('strong', name), buttons);
  }

  function drawRow(row, name) {
    const node = told.nodes[name];
    attribute(row, 'data-up', String(node.up !== false));
    WAYS.forEach(([key, bad, good], at) => {
      const it = row.children[at + 1];
      const well = isWell(node, key);
      const [verb, label, means] = well ? bad : good;
      text(it.firstChild, label);
      attribute(it, 'aria-label', `${label} ${name}: ${means}`);
      attribute(it, 'title', means);
      attribute(it, 'data-verb', verb);
      it.className = well ? 'breaks' : 'heals';
      it.hidden = key !== 'up' && node.up === false;
    });
  }

  look();
  setInterval(look, AGAIN_MS);
}

/** The demo may tell a factor as a word or as yes and no. */
function isWell(node, key) {
  if (key === 'storage' && node.storage_stall_ms) return false;
  const value = node[key];
  return value === true || value === undefined || value === 'up' || value === 'good' || value === 'joined';
}
