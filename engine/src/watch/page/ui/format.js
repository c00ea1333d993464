// Numbers and times as people read them.

export function duration(ms) {
  if (ms === null || ms === undefined) return 'never';
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1_000)} s`;
  if (ms < 86_400_000) return `${Math.floor(ms / 3_600_000)} h ${Math.floor((ms % 3_600_000) / 60_000)} min`;
  return `${Math.floor(ms / 86_400_000)} d ${Math.floor((ms % 86_400_000) / 3_600_000)} h`;
}

/** Ages change every second: one digit, so that nothing dances. */
export function age(ms) {
  if (ms === null || ms === undefined) return 'never';
  return ms < 60_000 ? `${(ms / 1_000).toFixed(1)} s` : duration(ms);
}

const pad = (value, width = 2) => String(value).padStart(width, '0');

/** Local time, with the day if it is not today. */
export function clock(wall_ms, exact = false) {
  const at = new Date(wall_ms);
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  const precise = exact ? `${time}.${pad(at.getMilliseconds(), 3)}` : time;
  return at.toDateString() === new Date().toDateString() ? precise : `${day(at)} ${precise}`;
}

function day(at) {
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
}

export function ago(wall_ms) {
  return `${duration(Math.max(0, Date.now() - wall_ms))} ago`;
}

export function mebibytes(mib) {
  if (mib < 1_024) return `${mib} MiB`;
  const gib = mib / 1_024;
  return `${gib < 10 ? gib.toFixed(1) : Math.round(gib)} GiB`;
}

export function bytes(count) {
  if (count < 1_024) return `${count} B`;
  if (count < 1_048_576) return `${Math.round(count / 1_024)} KiB`;
  return `${(count / 1_048_576).toFixed(1)} MiB`;
}

export function micros(us) {
  if (us === null || us === undefined) return 'none yet';
  if (us < 1_000) return `${us} µs`;
  return us < 1_000_000 ? `${(us / 1_000).toFixed(1)} ms` : `${(us / 1_000_000).toFixed(2)} s`;
}

const grouped = new Intl.NumberFormat('en');

export function number(value) {
  return Math.abs(value) < 1_000 ? String(value) : grouped.format(value).replace('-', '−');
}

export function signed(value) {
  return value < 0 ? `−${number(-value)}` : `+${number(value)}`;
}

/** `2 VMs`, `1 VM`. */
export function many(count, one, more = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : more}`;
}

/** `web, db and cache`, or the first few and how many more. */
export function names(list, most = 4) {
  const shown = list.slice(0, most);
  if (list.length > most) return `${shown.join(', ')} and ${list.length - most} more`;
  return shown.length < 2 ? shown.join('') : `${shown.slice(0, -1).join(', ')} and ${shown.at(-1)}`;
}

export function percent(ppm) {
  if (ppm >= 1_000_000) return '100 %';
  return `${(Math.floor(ppm / 10) / 1_000).toFixed(3)} %`;
}

/** A ledger stamp, as text or in parts. */
export function stamp(it) {
  if (!it) return 'none';
  if (typeof it === 'string') return it;
  return `${it.ballot?.term ?? 0}.${it.ballot?.node ?? 0}v${it.version ?? 0}`;
}

/** A node's priority. Below zero its size says nothing to people: the gravest doubt does, and the terms beside it have the number. */
export function priority(score) {
  if (score.value >= 0) return number(score.value);
  const gravest = [...(score.terms ?? [])].sort((a, b) => a.value - b.value)[0];
  return gravest ? `low: ${gravest.name}` : 'low';
}
