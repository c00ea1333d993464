// The election as it happens: its phases, and ballot by ballot what each node's policy says of it.

import { nodeName, store } from '../state.js';
import { attribute, fill, h, show, sync, text } from '../ui/dom.js';
import { many, number, priority } from '../ui/format.js';
import { icon } from '../ui/icons.js';
import { glow } from '../ui/motion.js';
import { badge, rebadge } from '../ui/parts.js';
import { sentence } from '../ui/words.js';
import { tell, terms } from './feed.js';

// What the machine calls its phases, as steps of one way.
const STEPS = [
  ['collecting', 'Ballots', 'Every elector asks its policy how well it would lead, and tells everybody.'],
  ['confirming', 'Confirmation', 'All electors confirm that they see the same winner.'],
  ['claiming', 'Claim', 'The winner claims the ledger with a higher term: a majority of storage has to agree.'],
  ['leading', 'Leader', 'The term stands.'],
];
const AT = { collecting: 0, confirming: 1, claiming: 2, leading: 4, following: 4 };
const WAITING = {
  idle: 'No election is needed now.',
  waiting: 'This node waits: there are too few electors, or it has to read the ledger first.',
};
const PAST = 200;
const KINDS = new Set(['election', 'elected', 'deposed', 'policy']);

export function make() {
  const headline = h('p.election-line');
  const reason = h('p.fine');
  const steps = h('ol.steps', { 'aria-label': 'Phases' }, STEPS.map(([, name, about]) => h('li', { title: about }, h('span.step-mark', icon('check')), h('div', h('strong', name), h('span.fine', about)))));
  const ballots = h('ol.ballots', { 'aria-label': 'Ballots, highest priority first' });
  const absent = h('p.fine');
  const past = h('ol.feed', { 'aria-label': 'Past elections' });
  const none = h('p.empty', 'No election since this page knows the cluster.');
  const element = h('div.election', h('h1', 'Election'),
    h('section.panel', { 'aria-label': 'Now' }, headline, reason, steps),
    h('div.two', h('section.panel', { 'aria-labelledby': 'h-ballots' }, h('h2', { id: 'h-ballots' }, 'Ballots'), ballots, absent),
      h('section.panel', { 'aria-labelledby': 'h-past' }, h('h2', { id: 'h-past' }, 'How it went'), none, past)));
  let round = null;

  function update(news) {
    if (news.all || news.keys.has('election') || news.keys.has('leader') || news.keys.has('view')) draw();
    if (news.all) fill(past);
    for (const it of news.all ? store.decisions.slice(-PAST) : news.decisions) if (KINDS.has(it.kind)) tell(past, it);
    show(none, past.childNodes.length === 0);
  }

  function draw() {
    const { election, leader, term } = store.state;
    const at = AT[election?.phase] ?? -1;
    const running = at >= 0 && at < 4;
    text(headline, running ? `Round ${number(election.round)} is under way.` : leader ? `${leader.name} leads, in term ${number(term)}.` : 'There is no leader.');
    text(reason, WAITING[election?.phase] && !leader ? WAITING[election.phase] : election?.reason ? `Why it began: ${sentence(election.reason)}` : '');
    [...steps.children].forEach((step, index) => {
      const now = index < at ? 'done' : index === at ? 'now' : 'next';
      attribute(step, 'data-now', now);
      attribute(step, 'aria-current', now === 'now' ? 'step' : null);
    });
    drawBallots(election ?? { ballots: [] });
  }

  function drawBallots(election) {
    // What was there when somebody came to look is no news.
    const news = round !== null;
    round = election.round;
    const list = [...(election.ballots ?? [])].sort((a, b) => b.eligible - a.eligible || b.priority.value - a.priority.value || a.node - b.node);
    const most = Math.max(1, ...list.map((it) => Math.abs(it.priority.value)));
    sync(ballots, list, (it) => `${election.round}/${it.node}`, () => makeBallot(news), (element, it) => drawBallot(element, it, most, election.winner));
    const voted = new Set(list.map((it) => it.node));
    const missing = Object.values(store.state.nodes).filter((node) => !voted.has(node.id)).map((node) => node.name);
    text(absent, missing.length === 0 ? '' : `${many(missing.length, 'node')} without a ballot: ${missing.slice(0, 8).join(', ')}${missing.length > 8 ? ' …' : ''}.`);
  }

  return { element, update };
}

function makeBallot(news) {
  const element = h('li.ballot', h('div.ballot-head', h('strong'), badge('info', 'check', ''), h('span.score')), h('div.ballot-track', h('span.ballot-bar')), h('div.ballot-why'));
  if (news) requestAnimationFrame(() => glow(element));
  return element;
}

function drawBallot(element, ballot, most, winner) {
  const [head, track, why] = element.children;
  text(head.children[0], nodeName(ballot.node));
  const won = winner === ballot.node;
  rebadge(head.children[1], ...(won ? ['good', 'star', 'winner'] : ballot.eligible ? ['info', 'check', 'may lead'] : ['off', 'minus', 'votes, may not lead']));
  text(head.children[2], priority(ballot.priority));
  element.classList.toggle('winner', won);
  track.firstChild.style.transform = `scaleX(${Math.max(0, ballot.priority.value) / most})`;
  const key = JSON.stringify([ballot.decider, ballot.priority.terms]);
  if (why.dataset.key !== key) {
    why.dataset.key = key;
    fill(why, terms(ballot.priority.terms), h('span.fine', `by ${ballot.decider}`));
  }
}
