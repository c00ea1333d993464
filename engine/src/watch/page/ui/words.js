// What the seed's words look like, and what to say about them. Tones: good, info, warn, bad, off.

export const STATUS = {
  'Leader': ['good', 'star', 'It leads the cluster: it decides what is restarted where.'],
  'Member': ['good', 'check', 'In good order.'],
  'Joining': ['info', 'enter', 'It is alive and waits to be admitted; HA VMs do not run there yet.'],
  'Suspect': ['warn', 'clock', 'A deadline is running: it may be failing.'],
  'Network isolation': ['bad', 'unlink', 'It lost the control network and cannot reach the verification addresses either.'],
  'Storage isolation': ['bad', 'disk', 'It lost the shared storage.'],
  'Full failure': ['bad', 'cross', 'Neither its beats nor its page on storage are seen.'],
  'Excluded from HA cluster': ['warn', 'minus', 'It lost the control network only. Its VMs keep running and nothing is moved.'],
  'Evicted': ['bad', 'cross', 'It may not run HA VMs until it is admitted again.'],
  'No quorum': ['bad', 'unlink', 'No majority is in view: what is said of other nodes is old.'],
  'Storage outage': ['warn', 'disk', 'Nobody reaches the shared storage, so nobody is isolated.'],
  'Network unstable': ['warn', 'wave', 'It left and came back too often lately. It is shown, and nothing is done.'],
  'Maintenance': ['info', 'wrench', 'An operator wants it empty.'],
  'Disarmed': ['info', 'unshield', 'High availability is switched off for everybody.'],
};

export const VM = {
  running: ['good', 'play'],
  starting: ['info', 'half'],
  stopping: ['info', 'half'],
  stopped: ['off', 'stop'],
  orphan: ['warn', 'orphan'],
  waiting: ['warn', 'clock'],
  failed: ['bad', 'cross'],
  unknown: ['warn', 'question'],
};

export const POLICY = {
  active: ['good', 'check', 'active'],
  staged: ['info', 'enter', 'staged: ready as soon as all live nodes hold it'],
  last_good: ['info', 'shield', 'the last good one: asked if the active one fails'],
  standby: ['off', 'minus', 'good, but another one decides'],
  ambiguous: ['warn', 'question', 'several claim the kind: none was chosen'],
  failed: ['bad', 'cross', 'did not pass loading'],
  suspended: ['warn', 'clock', 'failed too often, not asked for a while'],
  rolled_back: ['off', 'minus', 'rolled back by an operator'],
  built_in: ['off', 'shield', "the agent's own"],
};

export const KIND = { node_priority: 'Who leads', placement: 'Where VMs go', risk: 'Which node is about to fail' };
export const kindName = (kind) => kind.replaceAll('_', ' ');

export const SEVERITY = {
  ok: ['good', 'check'], info: ['info', 'clock'], warning: ['warn', 'warning'], critical: ['bad', 'cross'],
};

// The kinds of decisions, most of them told in one tone.
const DECISION = {
  bad: ['evicted', 'reset', 'last_words', 'alarm', 'start_failed', 'vm_failed', 'deposed'],
  warn: ['suspected', 'fence_ordered', 'waiting', 'start_refused', 'vm_exited', 'risk', 'disarm'],
  good: ['vm_running', 'elected', 'admitted', 'proved', 'fenced'],
};

export function decisionTone(kind) {
  return Object.keys(DECISION).find((tone) => DECISION[tone].includes(kind)) ?? 'info';
}

export const decisionKind = (kind) => ({ vm_running: 'guest running', vm_exited: 'guest exited', vm_stopped: 'guest stopped' })[kind] ?? kind.replaceAll('_', ' ');

export const status = (it) => STATUS[it] ?? ['warn', 'question', ''];
export const vmState = (it) => VM[it] ?? ['warn', 'question'];
export const isGood = (node) => ['good'].includes(status(node.status)[0]);

/** A sentence about a node: the agent's own reason, or what its status means. */
export function nodeSentence(node) {
  const said = node.reason || node.eviction || '';
  const text = said || status(node.status)[2];
  return text && sentence(text);
}

/** What a person can do about a node's status; nothing for good ones. */
export function nodeAdvice(node) {
  return {
    'Full failure': 'Look at its power and its console. Once it boots, it is admitted again by itself.',
    'Network isolation': 'Look at its links and switch ports of the control network. Once they are back, it is admitted again by itself.',
    'Storage isolation': 'Look at its storage paths (multipath, mount). Once they are back, it is admitted again by itself.',
    'Excluded from HA cluster': 'Repair its control network soon: while it is out, its page on storage is all that is seen of it.',
    'Evicted': 'Nothing, if it comes back by itself. Otherwise look at its console.',
    'No quorum': 'Bring back enough nodes for a majority. Running VMs keep running meanwhile.',
    'Storage outage': 'Look at the storage system. VMs keep running on network leases meanwhile.',
    'Network unstable': 'Look for a bad cable, port or driver: nothing is done about it by itself.',
    'Suspect': 'Wait: a deadline is running and the cluster decides within seconds.',
    'Maintenance': 'End the maintenance when the work is done.',
  }[node.status] ?? '';
}

/** First letter large, a full stop at the end. */
export function sentence(text) {
  const trimmed = String(text ?? '').trim();
  if (!trimmed) return '';
  // Names of VMs and nodes begin sentences as they are written.
  const first = /^(a|an|the|no|it|its|in|out|neither|nobody|nothing|power|waiting|waits|left|gone|high|since|not|fenced|starting|one|two|beat)\b/.test(trimmed)
    ? trimmed[0].toUpperCase() + trimmed.slice(1) : trimmed;
  return /[.!?…]$/.test(first) ? first : `${first}.`;
}

/** What to do: it begins with a verb, never with a name. */
export function advice(text) {
  const said = sentence(text);
  return said && said[0].toUpperCase() + said.slice(1);
}
