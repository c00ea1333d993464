// VMs that move are seen to move: a copy flies from the old place to the new one, above everything.

const FLIGHT_MS = 650;
const MOST_AT_ONCE = 40;
const calm = matchMedia('(prefers-reduced-motion: reduce)');
let flying = 0;

/** Where an element is, if a person can see it. */
export function place(element) {
  if (!element?.isConnected || calm.matches || document.hidden) return null;
  const box = element.getBoundingClientRect();
  const seen = box.width > 0 && box.bottom > 0 && box.top < innerHeight;
  return seen ? box : null;
}

/**
 * Lets each element, which is in its new place, come from the box beside it. All places are looked at before anything is changed,
 * so that the browser lays out once.
 */
export function fly(pairs) {
  const flights = pairs.slice(0, MOST_AT_ONCE - flying).map(([element, from]) => [element, from, from && place(element)]).filter(([, , to]) => to);
  for (const [element, from, to] of flights) launch(element, from, to);
}

function launch(element, from, to) {
  const ghost = element.cloneNode(true);
  ghost.removeAttribute('tabindex');
  ghost.setAttribute('aria-hidden', 'true');
  ghost.classList.add('ghost');
  Object.assign(ghost.style, { left: `${to.left}px`, top: `${to.top}px`, width: `${to.width}px`, height: `${to.height}px` });
  document.body.append(ghost);
  element.classList.add('landing');
  flying += 1;
  const [x, y] = [from.left - to.left, from.top - to.top];
  const rise = Math.min(60, Math.hypot(x, y) / 6);
  const flight = ghost.animate([
    { transform: `translate(${x}px, ${y}px)` },
    { transform: `translate(${x / 2}px, ${y / 2 - rise}px) scale(1.08)`, offset: 0.5 },
    { transform: 'none' },
  ], { duration: FLIGHT_MS, easing: 'cubic-bezier(.45, 0, .2, 1)' });
  flight.finished.catch(() => {}).then(() => {
    flying -= 1;
    ghost.remove();
    element.classList.remove('landing');
  });
}

/** A short glow: this just changed. */
export function glow(element) {
  if (!element || calm.matches || document.hidden) return;
  element.animate([{ boxShadow: '0 0 0 3px var(--glow)' }, { boxShadow: '0 0 0 9px transparent' }], { duration: 900 });
}
