// Decisions as they come, the newest first: each a sentence, with its facts on demand.

import { store } from '../state.js';
import { fill, h } from '../ui/dom.js';
import { clock } from '../ui/format.js';
import { decisionKind, decisionTone, sentence } from '../ui/words.js';

/** Its kind, and which nodes told of it. */
function tellers(decision, more = []) {
  const names = [decision.recorded_by, ...more].filter(Boolean);
  const shown = names.length > 5 ? `${names.slice(0, 4).join(', ')} and ${names.length - 4} more` : names.join(', ');
  return shown ? `${decisionKind(decision.kind)} · ${shown}` : decisionKind(decision.kind);
}

// Nodes that come to the same conclusion at once are told in one row.
const AT_ONCE_MS = 3_000;
const LOOKED_AT = 30;

/** Puts a decision on top, or beside the same one of another node. */
export function tell(list, decision) {
  const same = [...list.children].slice(0, LOOKED_AT).find(({ told }) => told.kind === decision.kind && told.text === decision.text
    && told.recorded_by !== decision.recorded_by && Math.abs(told.wall_ms - decision.wall_ms) < AT_ONCE_MS);
  if (!same) {
    const row = entry(decision);
    list.prepend(row);
    return row;
  }
  same.others.push(decision.recorded_by);
  same.querySelector('.kind').textContent = tellers(same.told, same.others);
  return same;
}

/** One decision. */
export function entry(decision, { open = false } = {}) {
  const tone = decisionTone(decision.kind);
  const time = h('time', { datetime: new Date(decision.wall_ms).toISOString(), title: clock(decision.wall_ms, true) }, clock(decision.wall_ms));
  const about = [decision.rule, decision.stamp && `ledger ${decision.stamp}`].filter(Boolean).join(' · ');
  const body = h('div.decision-more');
  const more = h('details', { open }, h('summary', h('span.kind', tellers(decision)), h('span.decision-text', sentence(decision.text))), body);
  const draw = () => body.childNodes.length === 0 && fill(body, facts(decision), reasons(decision.reasons), h('p.fine', about));
  more.addEventListener('toggle', draw);
  if (open) draw();
  const row = h(`li.decision.${tone}`, { dataset: { id: decision.id, wallMs: decision.wall_ms } }, time, more);
  return Object.assign(row, { told: decision, others: [] });
}

function facts({ facts: list }) {
  return list?.length > 0 && h('dl.facts.small', list.map(([name, value]) => h('div', h('dt', name), h('dd', value))));
}

/** What a policy said: candidates, best first, with the terms of their scores. */
export function reasons(it) {
  if (!it) return null;
  const rows = (it.candidates ?? []).slice(0, 8).map(({ node, score }) => h('li', h('strong', node), h('span.score', String(score.value)), terms(score.terms)));
  const who = typeof it.decider === 'string' ? it.decider : it.decider?.name ?? Object.values(it.decider ?? {})[0]?.name ?? '';
  return h('div.reasons',
    h('p', who ? `What ${who} said:` : 'What the policy said:'), h('ol.candidates', rows),
    it.corrections?.length > 0 && h('p', 'Not followed: ', it.corrections.join('; ')));
}

export function terms(list) {
  return h('span.terms', (list ?? []).filter((term) => term.value !== 0).map((term) => (
    h(`span.term.${term.value < 0 ? 'less' : 'more'}`, `${term.name} ${term.value < 0 ? '−' : '+'}${Math.abs(term.value).toLocaleString('en')}`))));
}

const SHOWN = 40;

/** The list of the newest, kept up to date. */
export function feed() {
  const list = h('ol.feed', { 'aria-label': 'Latest decisions' });
  const empty = h('p.empty', 'Nothing was decided lately.');
  const element = h('section.panel.feed-panel', { 'aria-labelledby': 'h-latest' },
    h('div.panel-head', h('h2', { id: 'h-latest' }, 'Latest decisions'), h('a', { href: '#/events' }, 'All events')), empty, list);
  function update(news) {
    if (news.all) fill(list);
    for (const it of news.all ? store.decisions.slice(-SHOWN) : news.decisions) {
      const row = tell(list, it);
      if (!news.all) row.classList.add('new');
    }
    while (list.childNodes.length > SHOWN) list.lastChild.remove();
    empty.hidden = list.childNodes.length > 0;
  }
  return { element, update };
}
