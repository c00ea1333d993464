// The few helpers that stand in for a framework.

/** `h('p.note', { hidden: true }, 'text', child)`: an element with classes, properties or attributes, and children. */
export function h(what, props, ...children) {
  const [tag, ...classes] = what.split('.');
  const element = document.createElement(tag || 'div');
  if (classes.length > 0) element.className = classes.join(' ');
  if (props instanceof Node || typeof props !== 'object' || Array.isArray(props)) children.unshift(props);
  else if (props) for (const [key, value] of Object.entries(props)) set(element, key, value);
  append(element, children);
  return element;
}

function set(element, key, value) {
  if (value === undefined || value === null || value === false) return;
  if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
  else if (key === 'dataset') Object.assign(element.dataset, value);
  else if (key in element && key !== 'list' && key !== 'role' && typeof value !== 'string') element[key] = value;
  else if (key === 'value' || key === 'htmlFor' || key === 'className') element[key] = value;
  else element.setAttribute(key, value === true ? '' : value);
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** Replaces all children. */
export function fill(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

/** Replaces all children; where one of them had the focus, the first new one has it. */
export function refill(element, ...children) {
  const had = element.contains(document.activeElement);
  fill(element, children);
  if (had) element.firstElementChild?.focus();
}

/** Sets text only if it differs: the browser lays nothing out for what stays. */
export function text(element, value) {
  const next = value === null || value === undefined ? '' : String(value);
  if (element.firstChild?.nodeType === 3 && element.childNodes.length === 1) {
    if (element.firstChild.data !== next) element.firstChild.data = next;
  } else if (element.textContent !== next) element.textContent = next;
}

export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/** Makes `parent`'s children those of `items`, in order: kept by key, made and removed as needed. */
export function sync(parent, items, key, make, update) {
  const known = parent.known ??= new Map();
  const wanted = new Set(items.map(key));
  for (const [id, element] of known) {
    if (!wanted.has(id)) {
      element.remove();
      known.delete(id);
    }
  }
  let place = parent.firstChild;
  for (const item of items) {
    const id = key(item);
    let element = known.get(id);
    if (!element) known.set(id, element = make(item));
    update?.(element, item);
    if (element === place) place = place.nextSibling;
    else parent.insertBefore(element, place);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** One tab stop for a group; arrow keys move within it. */
export function roving(container, selector) {
  const all = () => [...container.querySelectorAll(selector)].filter((it) => it.offsetParent !== null);
  const enter = (target) => {
    for (const it of container.querySelectorAll(`${selector}[tabindex="0"]`)) it.tabIndex = -1;
    target.tabIndex = 0;
  };
  container.addEventListener('focusin', (event) => {
    const target = event.target.closest(selector);
    if (target) enter(target);
  });
  container.addEventListener('keydown', (event) => {
    const at = event.target.closest(selector);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const end = { Home: 0, End: -1 }[event.key];
    if (!at || (step === undefined && end === undefined) || event.altKey || event.ctrlKey || event.metaKey) return;
    const items = all();
    const next = end === undefined ? items[items.indexOf(at) + step] : items.at(end);
    if (!next) return;
    event.preventDefault();
    enter(next);
    next.focus();
  });
  /** Somebody must be reachable by Tab. */
  return () => {
    if (container.querySelector(`${selector}[tabindex="0"]`)) return;
    const first = container.querySelector(selector);
    if (first) first.tabIndex = 0;
  };
}
