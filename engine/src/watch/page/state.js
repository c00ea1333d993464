// The cluster's live state, as the stream tells it, and who wants to hear of changes.
//
// Every change is applied at once; listeners are called once a frame with what was touched since, so that a burst of patches costs
// one drawing, and a patch of one VM among ten thousand costs the drawing of one VM.

const DECISIONS_KEPT = 300;

export const store = {
  state: null,
  // Names of nodes in the order of their ids.
  order: [],
  // Ids of VMs by the name of the node that owns them.
  vmsOf: new Map(),
  // Counts of VMs by their state, of everybody and by node.
  counts: new Map(),
  // How many VMs there are.
  total: 0,
  // The newest decisions, oldest first.
  decisions: [],
  incidents: new Map(),
};

const listeners = new Set();
let touched = nothing();
let scheduled = false;

function nothing() {
  return {
    all: false, keys: new Set(), nodes: new Set(), vms: new Set(), moved: new Map(),
    decisions: [], incidents: new Set(), alarms: false,
  };
}

export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function forget() {
  store.state = null;
  store.decisions = [];
  store.incidents.clear();
  index();
  touch((it) => { it.all = true; });
}

export function replace(state) {
  store.state = { nodes: {}, vms: {}, ...state };
  index();
  touch((it) => { it.all = true; });
}

/** Applies a merge patch (RFC 7396) to the state. */
export function patch(change) {
  const state = store.state;
  if (!state) return;
  for (const [key, value] of Object.entries(change)) {
    if (key === 'vms' && isObject(value)) {
      for (const [id, vm] of Object.entries(value)) patchVm(id, vm);
    } else if (key === 'nodes' && isObject(value)) {
      const before = Object.keys(state.nodes).length;
      for (const name of Object.keys(value)) touched.nodes.add(name);
      state.nodes = merge(state.nodes, value);
      if (Object.keys(state.nodes).length !== before) order();
    } else {
      if (value === null) delete state[key];
      else state[key] = merge(state[key], value);
      touched.keys.add(key);
    }
  }
  schedule();
}

function patchVm(id, change) {
  const vms = store.state.vms;
  const before = vms[id];
  // Merging changes in place, so where it was is noted first.
  const from = before?.owner?.name;
  unlist(id, before);
  if (change === null) delete vms[id];
  else vms[id] = merge(before, change);
  list(id, vms[id]);
  const to = vms[id]?.owner?.name;
  if (from !== to && !touched.moved.has(id)) touched.moved.set(id, from);
  for (const node of [from, to]) if (node) touched.nodes.add(node);
  touched.vms.add(id);
}

/** RFC 7396: objects are merged, `null` removes, everything else replaces. */
export function merge(target, change) {
  if (!isObject(change)) return change;
  const result = isObject(target) ? target : {};
  for (const [key, value] of Object.entries(change)) {
    if (value === null) delete result[key];
    else result[key] = merge(result[key], value);
  }
  return result;
}

function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

export function decided(decision) {
  if (store.decisions.some((known) => known.id === decision.id)) return;
  store.decisions.push(decision);
  if (store.decisions.length > DECISIONS_KEPT) store.decisions.shift();
  touch((it) => it.decisions.push(decision));
}

/** Decisions of the past, in any order. */
export function remember(decisions) {
  const known = new Map([...decisions, ...store.decisions].map((it) => [it.id, it]));
  store.decisions = [...known.values()].sort((a, b) => a.wall_ms - b.wall_ms || a.number - b.number);
  store.decisions.splice(0, store.decisions.length - DECISIONS_KEPT);
  touch((it) => { it.all = true; });
}

export function incidentChanged(incident) {
  store.incidents.set(incident.id, incident);
  touch((it) => it.incidents.add(incident.id));
}

export function alarmChanged() {
  touch((it) => { it.alarms = true; });
}

function touch(what) {
  what(touched);
  schedule();
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(flush);
}

function flush() {
  const news = touched;
  touched = nothing();
  scheduled = false;
  for (const listener of listeners) listener(news);
}

// The index: which VMs are where, and how many are in which state.

function index() {
  store.vmsOf = new Map();
  store.counts = new Map();
  store.total = 0;
  order();
  for (const [id, vm] of Object.entries(store.state?.vms ?? {})) list(id, vm);
}

function order() {
  const nodes = Object.entries(store.state?.nodes ?? {});
  store.order = nodes.sort(([, a], [, b]) => a.id - b.id).map(([name]) => name);
}

function list(id, vm) {
  const node = vm?.owner?.name;
  if (!node) return;
  if (!store.vmsOf.has(node)) store.vmsOf.set(node, new Set());
  store.vmsOf.get(node).add(id);
  count(vm.state, 1);
}

function unlist(id, vm) {
  const node = vm?.owner?.name;
  if (!node) return;
  store.vmsOf.get(node)?.delete(id);
  count(vm.state, -1);
}

function count(state, by) {
  store.total += by;
  store.counts.set(state, (store.counts.get(state) ?? 0) + by);
}

/** Name of the node with this id. */
export function nodeName(id) {
  const found = store.order.find((name) => store.state.nodes[name].id === id);
  return found ?? `node ${id}`;
}

/** VMs of a node: those that do not run come first, then the most important. */
export function vmsOn(node) {
  const vms = [...(store.vmsOf.get(node) ?? [])].map((id) => store.state.vms[id]);
  const rank = (vm) => (CALM.has(vm.state) && !vm.migrating_to ? 1 : 0);
  return vms.sort((a, b) => rank(a) - rank(b) || b.priority - a.priority || (a.name < b.name ? -1 : 1));
}

const CALM = new Set(['running', 'stopped']);
