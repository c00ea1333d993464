// Open alarms, and who knows of them.

import { get, post } from '../api.js';
import { toast } from '../ui/dialog.js';
import { fill, h, show } from '../ui/dom.js';
import { ago } from '../ui/format.js';
import { badge, button } from '../ui/parts.js';
import { SEVERITY, sentence } from '../ui/words.js';

export function make() {
  const list = h('ul.rows');
  const element = h('section.panel', { 'aria-labelledby': 'h-alarms' }, h('h2', { id: 'h-alarms' }, 'Alarms'), list);
  show(element, false);
  ask();

  async function ask() {
    const all = await get('/v1/alarms').catch(() => []);
    const open = (all ?? []).filter((it) => !it.resolved_wall_ms);
    show(element, open.length > 0);
    fill(list, open.map(row));
  }

  function row(it) {
    const [tone, shape] = SEVERITY[it.severity] ?? SEVERITY.warning;
    const known = it.acknowledged_wall_ms ? h('span.fine', `known to ${it.acknowledged_by ?? 'somebody'}`)
      : button('Acknowledge', () => acknowledge(it), { label: `Acknowledge: ${it.text}` });
    return h('li', badge(tone, shape, it.severity), h('span.alarm-text', sentence(it.text)), h('span.fine', ago(it.raised_wall_ms)), known);
  }

  async function acknowledge(it) {
    const answer = await post(`/v1/alarms/${it.id}/acknowledge`).catch((problem) => problem);
    if (answer instanceof Error) toast(sentence(answer.message), 'bad');
    else toast('Nobody is told of it again while it lasts.', 'good');
    ask();
  }

  return { element, update: (news) => (news.all || news.alarms || news.keys.has('watch')) && ask() };
}
