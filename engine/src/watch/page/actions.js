// Everything that can be asked of the cluster. Each change says first what will happen, and then what came of it.

import { agent, ofAgent, post, put, remove } from './api.js';
import { confirm, tell } from './ui/dialog.js';
import { h } from './ui/dom.js';
import { duration, many, names } from './ui/format.js';
import { field } from './ui/parts.js';
import { store, vmsOn } from './state.js';

const number = (value, min, max) => h('input', { type: 'number', value: String(value), min: String(min), max: String(max), required: true, inputmode: 'numeric' });
const words = (placeholder) => h('input', { type: 'text', required: true, placeholder: `for example: ${placeholder}`, autocomplete: 'off', maxlength: '200' });

/** Every answer may bring notes that a person should read. */
function done(text, answer) {
  return [text, ...(answer?.notes ?? [])].join(' ');
}

// VMs.

export function enableVm() {
  const name = words('web');
  const priority = number(500, 0, 1_000);
  return confirm({
    title: 'Protect a VM',
    happens: ['If its node fails, it is started again on another one, and never on two at once.',
      'Its disks must lie on shared storage; that is checked now. It goes on running as it is.'],
    fields: [
      { name: 'name', label: 'Name of the VM, as libvirt has it', input: name },
      { name: 'priority', label: 'Restart priority', input: priority, hint: '1000 starts first, 0 last.' },
    ],
    verb: 'Switch HA on',
    act: async (it) => done(`${it.name} is protected.`, await post(ofAgent('vms'), { name: it.name.trim(), priority: Number(it.priority) })),
  });
}

export function disableVm(vm) {
  return confirm({
    title: `Switch HA off for ${vm.name}`,
    happens: [`${vm.name} goes on running on ${vm.owner.name}.`, 'If its node fails, it is not started again anywhere.'],
    verb: 'Switch HA off',
    tone: 'danger',
    act: async () => done(`${vm.name} is not protected any more.`, await remove(agent`vms/${vm.id}`)),
  });
}

export function changePriority(vm) {
  return confirm({
    title: `Restart priority of ${vm.name}`,
    happens: ['It counts when VMs are started again after a failure: higher first, and where room is short, higher only.', 'Nothing is moved now.'],
    fields: [{ name: 'priority', label: 'Priority, 0 to 1000', input: number(vm.priority, 0, 1_000) }],
    verb: 'Change priority',
    act: async (it) => done(`${vm.name} has priority ${it.priority}.`, await put(agent`vms/${vm.id}/priority`, { priority: Number(it.priority) })),
  });
}

export function startVm(vm) {
  return confirm({
    title: `Start ${vm.name}`,
    happens: [`The leader starts it where the placement policy says, its budgets of attempts are fresh.`],
    verb: 'Start',
    act: async () => done(`${vm.name} is to run.`, await post(agent`vms/${vm.id}/start`)),
  });
}

export function stopVm(vm) {
  return confirm({
    title: `Shut down ${vm.name}`,
    happens: [`The guest is asked to shut down; it is switched off if it does not.`, 'It stays off, also if its node fails, until somebody starts it.'],
    verb: 'Shut down',
    tone: 'danger',
    act: async () => done(`${vm.name} is to be off.`, await post(agent`vms/${vm.id}/stop`)),
  });
}

export function moveVm(vm) {
  const others = store.order.filter((name) => name !== vm.owner.name);
  const to = h('select', others.map((name) => h('option', { value: name }, `${name} (${store.state.nodes[name].status})`)));
  const way = h('select', h('option', { value: 'migrate' }, 'live, without a break'), h('option', { value: 'relocate' }, 'stop it here, start it there'));
  return confirm({
    title: `Move ${vm.name}`,
    happens: [`It leaves ${vm.owner.name}. The ledger names one owner at every moment.`],
    fields: [{ name: 'to', label: 'To', input: to }, { name: 'way', label: 'How', input: way }],
    verb: 'Move',
    act: async (it) => done(`${vm.name} moves to ${it.to}.`, await post(ofAgent(`vms/${encodeURIComponent(vm.id)}/${it.way}`), { to: it.to })),
  });
}

// Nodes and the cluster.

export function beginMaintenance(node) {
  const count = vmsOn(node.name).length;
  const restart = h('input', { type: 'checkbox' });
  return confirm({
    title: `Maintenance of ${node.name}`,
    happens: [`Its ${many(count, 'VM')} move away live; none is started on it until the maintenance ends.`,
      'VMs return to it when the maintenance ends.'],
    fields: [
      { name: 'reason', label: 'Reason', input: words('new memory') },
      { name: 'restart', label: 'VMs that cannot move live are stopped and started elsewhere', input: restart },
    ],
    verb: 'Begin maintenance',
    act: async (it) => done(`${node.name} is being emptied.`, await post(agent`nodes/${node.name}/maintenance`, { restart: it.restart, reason: it.reason })),
  });
}

export function endMaintenance(node) {
  return confirm({
    title: `End the maintenance of ${node.name}`,
    happens: ['It takes VMs again, and those that were moved off it return live.'],
    verb: 'End maintenance',
    act: async () => done(`${node.name} is used again.`, await remove(agent`nodes/${node.name}/maintenance`)),
  });
}

export function disarmAll() {
  const limit = h('select', [[30, '30 minutes'], [60, 'one hour'], [240, 'four hours'], [0, 'until somebody arms it']].map(([minutes, label]) => (
    h('option', { value: String(minutes) }, label))));
  return confirm({
    title: 'Switch high availability off for everybody',
    happens: ['VMs go on running where they are.', 'Whatever fails meanwhile, nothing is started, stopped or fenced.'],
    fields: [{ name: 'reason', label: 'Reason', input: words('new switches') }, { name: 'minutes', label: 'For', input: limit }],
    verb: 'Disarm',
    tone: 'danger',
    act: async ({ reason, minutes }) => {
      const limit_ms = Number(minutes) * 60_000;
      const answer = await post(ofAgent('disarm'), { reason, ...(limit_ms ? { limit_ms } : {}) });
      return done(limit_ms ? `High availability is off for ${duration(limit_ms)}.` : 'High availability is off.', answer);
    },
  });
}

export function armAgain() {
  return confirm({
    title: 'Arm high availability again',
    happens: ['From now on failures are acted on again. Nodes that failed meanwhile are treated as if they failed now.'],
    verb: 'Arm',
    act: async () => done('High availability is on.', await post(ofAgent('arm'))),
  });
}

// Policies.

export function uploadPolicy(kind, file) {
  return put(agent`policies/${kind}/module`, file);
}

export function rollBack(kind, from, digest) {
  return confirm({
    title: `Roll ${kind.replaceAll('_', ' ')} back`,
    happens: [`${from} decides no more, at once and on every node.`,
      'Dropping another file into the folder, or taking the rollback back, ends it.'],
    verb: 'Roll back',
    tone: 'danger',
    act: async () => {
      const it = await post(agent`policies/${kind}/rollback`, { digest });
      return done(`${it?.decides || 'The one before'} decides now.`, it);
    },
  });
}

export function undoRollBack(kind) {
  return confirm({
    title: `Take the rollback of ${kind.replaceAll('_', ' ')} back`,
    happens: ['The policy that was rolled back decides again.'],
    verb: 'Take it back',
    act: async () => {
      const it = await remove(agent`policies/${kind}/rollback`);
      return done(`${it?.decides || 'It'} decides now.`, it);
    },
  });
}

/** Which policy is bound is part of each node's configuration: the page writes the line. */
export function bindPolicy(kind, policies, bound) {
  const select = h('select', policies.map((name) => h('option', { value: name, selected: name === bound }, name)));
  const line = h('pre', { tabIndex: 0, 'aria-label': 'Lines for the configuration' });
  const write = () => line.replaceChildren(`[policies]\nbind = { ${kind} = "${select.value}" }`);
  select.addEventListener('change', write);
  write();
  return tell(`Bind ${kind.replaceAll('_', ' ')} to a policy`, [
    h('p', 'A bound policy wins over every other one of its kind. If it fails, the last good one is asked, then the agent’s own.'),
    field('Policy', select), h('p', 'Put this into steadfast.toml on every node, then restart the agents one by one:'), line]);
}

// Settings.

export function setVerification(addresses) {
  return confirm({
    title: 'Verification addresses',
    happens: [addresses.length > 0 ? `Nodes ask ${names(addresses)} whether the VMs' network works while the control network is lost.`
      : 'Without one, a node that loses the control network only counts as isolated.'],
    verb: 'Change',
    act: async () => done('The addresses are changed.', await put(ofAgent('verification'), { addresses })),
  });
}

export function protectSelf(vm) {
  return confirm({
    title: 'Protect HA-watch itself',
    happens: [`HA-watch runs in the VM ${vm.name}. It becomes an HA VM like any other.`,
      'When its node fails, this page is away until the VM has started elsewhere: about as long as any failover. The failover itself does not need it.'],
    verb: 'Switch HA on',
    act: async () => done('HA-watch is protected.', await post(ofAgent('vms'), { name: vm.name, priority: 900 })),
  });
}
