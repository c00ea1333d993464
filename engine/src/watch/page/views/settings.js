// Settings: time-outs with what they cost, verification addresses, and HA-watch's own safety.

import { get, ofAgent } from '../api.js';
import { disarmAll, armAgain, protectSelf, setVerification } from '../actions.js';
import { store } from '../state.js';
import { fill, h } from '../ui/dom.js';
import { names } from '../ui/format.js';
import { icon } from '../ui/icons.js';
import { button, facts, field } from '../ui/parts.js';
import { advice, sentence } from '../ui/words.js';
import { timing } from './timing.js';

export function make() {
  const times = timing();
  const armed = h('div');
  const self = h('div');
  const about = h('div');
  const element = h('div.settings', h('h1', 'Settings'), times.element,
    h('div.two',
      h('section.panel', { 'aria-labelledby': 'h-verification' }, h('h2', { id: 'h-verification' }, 'Verification addresses'), verification()),
      h('section.panel', { 'aria-labelledby': 'h-armed' }, h('h2', { id: 'h-armed' }, 'High availability'), armed),
      h('section.panel', { 'aria-labelledby': 'h-self' }, h('h2', { id: 'h-self' }, 'HA-watch itself'), self),
      h('section.panel', { 'aria-labelledby': 'h-about' }, h('h2', { id: 'h-about' }, 'About'), about)));

  function update(news) {
    times.update(news);
    const { state } = store;
    if (news.all || news.keys.has('disarm')) {
      fill(armed, h('p', state.disarm ? `It is switched off: “${state.disarm.reason}”.` : 'It is on: failures are acted on.'),
        h('div.actions', state.disarm ? button('Arm again', armAgain, { name: 'shield', tone: 'primary' }) : button('Disarm', disarmAll, { name: 'unshield', tone: 'danger' })));
    }
    if (news.all || news.keys.has('watch')) fill(self, watchItself(state.watch));
    if (news.all || news.keys.has('leader')) fill(about, aboutFacts(state));
  }
  return { element, update };
}

function watchItself(watch) {
  const vm = watch?.self_vm;
  const means = h('p.fine', 'If HA-watch dies, nothing about failover changes: agents decide by themselves. This page, history and alarms are away until it runs again.');
  if (!vm) return [h('p', 'It does not run in a VM of this cluster.'), means];
  if (vm.protected) return [h('p.done', icon('shield'), `It runs in the VM ${vm.name}, which is protected.`), means];
  return [h('p', `It runs in the VM ${vm.name}, which is not protected.`), means, h('div.actions', button('Protect it', () => protectSelf(vm), { name: 'shield', tone: 'primary' }))];
}

function aboutFacts(state) {
  const through = state.watch?.via ?? state.node?.name;
  return facts([['Cluster', state.cluster], ['Nodes', names(store.order, 12)], ['Agent', `version ${state.version}`], ['Seen through', through]]);
}

function verification() {
  const input = h('textarea', { rows: '3', spellcheck: 'false', autocomplete: 'off' });
  const note = h('div', { role: 'status' });
  const save = button('Change', () => {
    const list = input.value.split(/[\s,]+/).filter(Boolean);
    setVerification(list).then((done) => done && ask());
  }, { name: 'check' });
  async function ask() {
    const told = await get(ofAgent('verification')).catch((problem) => problem);
    if (told instanceof Error) {
      fill(note, h('p.fine', sentence(told.message), ' ', advice(told.remedy)));
      return;
    }
    const list = Array.isArray(told) ? told : told.addresses ?? told.ips ?? [];
    input.value = list.join('\n');
    const own = store.state?.nodes ?? {};
    const dead = Object.values(own).filter((node) => node.verification === false).map((node) => node.name);
    fill(note, dead.length > 0 && h('p.note.warn', icon('warning'), `They do not answer ${names(dead)}.`));
  }
  ask();
  return [h('p.fine', 'A node that loses the control network asks these addresses, on the VMs’ network. If one answers, its VMs keep running where they are: it is excluded, not isolated.'),
    field('Addresses, one a line', input), h('div.actions', save), note];
}
