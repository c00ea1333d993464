// Small parts that every view uses.

import { attribute, h, text } from './dom.js';
import { icon, redraw } from './icons.js';
import { age } from './format.js';

/** An icon, a word, and a colour. */
export function badge(tone, name, words) {
  return h(`span.badge.${tone}`, icon(name), h('span', words));
}

export function rebadge(element, tone, name, words) {
  const wanted = `badge ${tone}`;
  if (element.className !== wanted) element.className = wanted;
  redraw(element.firstChild, name);
  text(element.lastChild, words);
}

/**
 * A bar against a limit. `limits` are where it turns amber and red, as fractions; `falling`: little is bad (a lease), otherwise much is.
 */
export function meter(label) {
  const bar = h('span.meter-bar');
  const value = h('span.meter-value');
  const track = h('span.meter-track', { role: 'meter', 'aria-label': label, 'aria-valuemin': 0 }, bar);
  const element = h('div.meter', h('span.meter-label', { 'aria-hidden': 'true' }, label), track, value);
  return {
    element,
    update({ now, limit, shown, warn, bad, falling = false, spoken, unknown = 'never', title }) {
      const missing = now === null || now === undefined;
      const part = missing ? (falling ? 0 : 1) : Math.min(1, Math.max(0, now / (limit || 1)));
      const tone = missing ? 'bad' : falling
        ? (part <= bad ? 'bad' : part <= warn ? 'warn' : 'good') : (part >= bad ? 'bad' : part >= warn ? 'warn' : 'good');
      const words = missing ? unknown : shown ?? age(now);
      if (element.dataset.tone !== tone) element.dataset.tone = tone;
      const scale = `scaleX(${part.toFixed(3)})`;
      if (bar.style.transform !== scale) bar.style.transform = scale;
      text(value, words);
      attribute(track, 'aria-valuemax', Math.round(limit || 1));
      attribute(track, 'aria-valuenow', missing ? 0 : Math.round(now));
      attribute(track, 'aria-valuetext', spoken ?? words);
      if (title) attribute(element, 'title', title);
    },
  };
}

/** Pairs of a name and a value. Values may be elements. */
export function facts(pairs) {
  const shown = pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== '');
  return h('dl.facts', shown.map(([name, value]) => h('div', h('dt', name), h('dd', value))));
}

export function table(caption, heads, rows, options = {}) {
  const head = h('tr', heads.map((name) => h('th', { scope: 'col' }, name)));
  const body = rows.map((cells) => (cells instanceof Node ? cells : h('tr', cells.map((cell, at) => (at === 0
    ? h('th', { scope: 'row' }, cell) : h('td', cell))))));
  const shown = h('table', h('caption', { className: options.caption ? '' : 'visually-hidden' }, caption), h('thead', head), h('tbody', body));
  // Wide tables scroll by themselves, also by keyboard; the page never does.
  return h('div.scroll', { role: 'region', 'aria-label': caption, tabIndex: 0 }, shown);
}

export function section(title, ...children) {
  const id = `h-${title.toLowerCase().replace(/[^a-z]+/g, '-')}`;
  return h('section.panel', { 'aria-labelledby': id }, h('h2', { id }, title), children);
}

export function button(words, onclick, options = {}) {
  const { tone = '', name, label, ...rest } = options;
  return h(`button${tone ? `.${tone}` : ''}`, { type: 'button', onclick, 'aria-label': label, ...rest }, name && icon(name), words && h('span', words));
}

let fields = 0;

/** A labelled field with a hint. */
export function field(label, input, hint) {
  const id = input.id || `field-${++fields}`;
  input.id = id;
  if (hint) input.setAttribute('aria-describedby', `${id}-hint`);
  return h('div.field', h('label', { htmlFor: id }, label), input, hint && h('p.hint', { id: `${id}-hint` }, hint));
}
