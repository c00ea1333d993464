// What a screen reader is told unasked: rarely, and never the same twice in a row.

const QUIET_MS = 2_500;
let waiting = [];
let last = '';
let timer = null;

export function announce(words) {
  if (words === last || waiting.includes(words)) return;
  waiting.push(words);
  timer ??= setTimeout(say, 150);
}

function say() {
  const said = waiting.length > 3 ? `${waiting.slice(-2).join(' ')} And ${waiting.length - 2} more changes.` : waiting.join(' ');
  waiting = [];
  last = said;
  document.getElementById('said').textContent = said;
  timer = setTimeout(() => {
    timer = null;
    if (waiting.length > 0) say();
  }, QUIET_MS);
}
