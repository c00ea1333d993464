// Follows the stream of one cluster: server-sent events, read by `fetch` so that a token can go in a header.
//
// Ages are told once a second, so silence means that something is wrong: after LATE the page says so, after LOST it connects anew.

import { headers, askForToken } from './api.js';

const LATE_MS = 3_500;
const LOST_MS = 10_000;
const AGAIN_MS = [300, 1_000, 2_000, 4_000, 5_000];

/**
 * `on` has a function for each event by name (`state`, `patch`, ...) and `link(state)`, which is told of the connection:
 * `connecting`, `live`, `late` or `lost`. Returns an object that stops it and knows when it was last heard.
 */
export function follow(url, on) {
  const link = { heard: null, now: 'connecting', attempts: 0, stop, why: '' };
  let aborter = null;
  let stopped = false;
  const watch = setInterval(() => {
    const silence = link.heard === null ? 0 : Date.now() - link.heard;
    if (link.now === 'live' && silence > LATE_MS) say('late');
    if (link.now === 'late' && silence > LOST_MS) aborter?.abort();
  }, 500);

  function say(now) {
    link.now = now;
    on.link(link);
  }

  function stop() {
    stopped = true;
    clearInterval(watch);
    aborter?.abort();
  }

  async function run() {
    while (!stopped) {
      link.why = await once().catch((error) => error.message);
      if (stopped) return;
      say('lost');
      await pause(AGAIN_MS[Math.min(link.attempts++, AGAIN_MS.length - 1)]);
    }
  }

  /** One connection, until it ends. Why it ended. */
  async function once() {
    aborter = new AbortController();
    const response = await fetch(url, {
      headers: { ...headers(), accept: 'text/event-stream' }, signal: aborter.signal, cache: 'no-store',
    });
    if (response.status === 401) {
      await askForToken();
      return 'a token is needed';
    }
    if (!response.ok) return `the server answered ${response.status}`;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const feed = parser((event, data) => {
      if (event === 'state') link.attempts = 0;
      on[event]?.(JSON.parse(data));
    });
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return 'the server ended the stream';
      link.heard = Date.now();
      if (link.now !== 'live') say('live');
      feed(value);
    }
  }

  run();
  return link;
}

/** Splits what arrives into events; pieces of any size. */
export function parser(emit) {
  let pieces = [];
  let event = 'message';
  let data = [];
  return (text) => {
    let from = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
      pieces.push(text.slice(from, end));
      const whole = pieces.join('');
      pieces = [];
      from = end + 1;
      line(whole.endsWith('\r') ? whole.slice(0, -1) : whole);
    }
    // A large state arrives in many pieces, which are joined once.
    if (from < text.length) pieces.push(text.slice(from));
  };
  function line(it) {
    if (it === '') {
      if (data.length > 0) emit(event, data.join('\n'));
      event = 'message';
      data = [];
    } else if (it.startsWith('data:')) data.push(it.slice(it[5] === ' ' ? 6 : 5));
    else if (it.startsWith('event:')) event = it.slice(6).trim();
  }
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
