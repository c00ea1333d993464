// One VM in the side panel: where and how it is, why, and what can be done.

import { agent, get } from '../api.js';
import { changePriority, disableVm, moveVm, startVm, stopVm } from '../actions.js';
import { store } from '../state.js';
import { fill, h, refill, show, text } from '../ui/dom.js';
import { mebibytes } from '../ui/format.js';
import { badge, button, facts, rebadge } from '../ui/parts.js';
import { sentence, vmState } from '../ui/words.js';
import { entry } from './feed.js';

export function make(name) {
  const find = () => store.state.vms[name] ?? Object.values(store.state.vms).find((vm) => vm.name === name);
  const mark = badge('info', 'clock', '');
  const reason = h('p.reason');
  const actions = h('div.actions');
  const figures = h('div');
  const story = h('ol.feed', { 'aria-label': 'What happened to it' });
  const notes = h('p.fine');
  const element = h('div.drawer-body', mark, reason, actions, h('section', h('h3', 'State'), figures), h('section', h('h3', 'What happened to it, and why'), story, notes));
  let offered = '';
  ask();

  async function ask() {
    const told = await get(agent`explain/${name}?limit=20`).catch((problem) => ({ notes: [problem.message] }));
    const known = told.decisions ?? store.decisions.filter((it) => it.vm_id === name || it.vm === find()?.name);
    fill(story, [...known].reverse().map((it) => entry(it)));
    text(notes, known.length === 0 ? sentence(told.notes?.[0] ?? 'nothing was decided about it yet') : (told.notes ?? []).join(' '));
  }

  function update(news) {
    const vm = find();
    if (!vm) return fill(element, h('p.empty', 'This VM is not protected by this cluster, or not any more.'));
    if (!news.all && !news.vms?.has(vm.id)) return undefined;
    for (const it of news.decisions ?? []) if (it.vm_id === vm.id) story.prepend(entry(it));
    rebadge(mark, ...(vm.migrating_to ? ['info', 'move'] : vmState(vm.state)), vm.migrating_to ? `moving to ${vm.migrating_to.name}` : vm.state);
    text(reason, sentence(vm.reason));
    show(reason, Boolean(vm.reason));
    offer(vm);
    fill(figures, facts([
      ['Node', h('a', { href: `#/overview/node/${encodeURIComponent(vm.owner.name)}` }, vm.owner.name)],
      ['Wanted', vm.desired === 'Stopped' || vm.desired === 'stopped' ? 'to be off' : 'to run'],
      ['Restart priority', String(vm.priority)],
      ['Memory', mebibytes(vm.memory_mib)],
      ['Virtual CPUs', String(vm.vcpus)],
      ['Labels', Object.entries(vm.labels ?? {}).map(([key, value]) => `${key} = ${value}`).join(', ')],
      ['Returns to', vm.home?.name],
      ['UUID', h('code', vm.id)],
    ]));
    return undefined;
  }

  function offer(vm) {
    const off = ['stopped', 'failed'].includes(vm.state);
    const key = `${off}`;
    if (key === offered) return;
    offered = key;
    const now = (act) => () => act(find());
    refill(actions, off ? button('Start', now(startVm), { name: 'play', tone: 'primary' }) : button('Move', now(moveVm), { name: 'move' }),
      button('Priority', now(changePriority), { name: 'sliders' }), !off && button('Shut down', now(stopVm), { name: 'power' }),
      button('Switch HA off', now(disableVm), { name: 'unshield' }));
  }

  return { title: find()?.name ?? name, element, update };
}
