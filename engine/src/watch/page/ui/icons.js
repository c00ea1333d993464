// Icons as strokes on a 16 by 16 grid. They stand beside words, never instead of them, so they are hidden from screen readers.

const SHAPES = {
  star: 'M8 1.800l1.900 4 4.300.5-3.200 3 .9 4.300L8 11.500l-3.900 2.100.9-4.300-3.200-3 4.300-.5z',
  check: 'M2.500 8a5.500 5.500 0 1 0 11 0a5.500 5.500 0 1 0-11 0M5.500 8.200l1.800 1.800 3.300-3.700',
  enter: 'M9 2.500h4v11H9M2 8h7M6.500 5.200L9.300 8l-2.800 2.800',
  clock: 'M2.500 8a5.500 5.500 0 1 0 11 0a5.500 5.500 0 1 0-11 0M8 4.800V8l2.300 1.500',
  unlink: 'M6.500 9.500l-2 2a2.300 2.300 0 0 1-3.200-3.200l2-2M9.500 6.500l2-2a2.300 2.300 0 0 1 3.200 3.200l-2 2M3 3l10 10',
  disk: 'M2.500 4c0-1.200 11-1.200 11 0v8c0 1.200-11 1.200-11 0zM2.500 4c0 1.200 11 1.200 11 0M2.500 14.500l11-13',
  cross: 'M5 2h6l3 3v6l-3 3H5l-3-3V5zM5.700 5.700l4.600 4.600M10.300 5.700l-4.600 4.600',
  minus: 'M2.500 8a5.500 5.500 0 1 0 11 0a5.500 5.500 0 1 0-11 0M5.300 8h5.400',
  wave: 'M1.500 9.500c1.500-5 3-5 4.300-1.500s2.900 3.500 4.300 0 2.700-3.500 4.400-.5',
  wrench: 'M10.500 2.300a3.500 3.500 0 0 0-3.900 4.800L2.300 11.400v2.300h2.300l4.300-4.300a3.500 3.500 0 0 0 4.800-3.900l-2.100 2-2-.5-.5-2z',
  shield: 'M8 1.800l5 2v4c0 3.200-2.200 5.300-5 6.400-2.800-1.100-5-3.200-5-6.400v-4z',
  unshield: 'M8 1.800l5 2v4c0 3.200-2.200 5.300-5 6.400-2.800-1.100-5-3.200-5-6.400v-4zM2 14L14 2',
  play: 'M4.500 3l8 5-8 5z',
  half: 'M2.500 8a5.500 5.500 0 1 0 11 0a5.500 5.500 0 1 0-11 0M8 2.500v11a5.500 5.500 0 0 0 0-11',
  stop: 'M4 4h8v8H4z',
  orphan: 'M8 2l6 6-6 6-6-6zM8 5.500v3M8 10.300v.2',
  warning: 'M8 2l6.500 11.500h-13zM8 6.500v3.200M8 11.500v.2',
  question: 'M2.500 8a5.500 5.500 0 1 0 11 0a5.500 5.500 0 1 0-11 0M6.300 6.500a1.700 1.700 0 1 1 2.400 1.600c-.5.3-.7.600-.7 1.100M8 11.200v.1',
  move: 'M2 5.500h10M9.500 3L12 5.500 9.500 8M14 10.500H4M6.500 8L4 10.500 6.500 13',
  bell: 'M4 11V7.500a4 4 0 0 1 8 0V11l1.200 1.500H2.800zM6.800 14.300h2.400',
  sun: 'M5.500 8a2.500 2.500 0 1 0 5 0a2.500 2.500 0 1 0-5 0M8 1.500v1.300M8 13.200v1.300M1.500 8h1.300M13.200 8h1.300M3.400 3.400l.9.900M11.700 11.700l.9.900M12.600 3.400l-.9.900M4.300 11.700l-.9.900',
  moon: 'M13.500 9.500A6 6 0 0 1 6.500 2.500a6 6 0 1 0 7 7z',
  memory: 'M2.500 4.500h11v7h-11zM5 4.500v-2M8 4.500v-2M11 4.500v-2M5 13.500v-2M8 13.500v-2M11 13.500v-2',
  upload: 'M8 10.500v-8M4.800 5.500L8 2.300l3.200 3.200M2.500 10.500v3h11v-3',
  close: 'M3.500 3.500l9 9M12.500 3.500l-9 9',
  columns: 'M2.500 2.500h3v11h-3zM6.500 2.500h3v11h-3zM10.500 2.500h3v11h-3z',
  vote: 'M2.500 8.500h11v5h-11zM4.500 8.500v-6h7v6M6.300 5.500l1.300 1.300 2.300-2.500',
  timeline: 'M1.500 8h3l2-5 3 10 2-5h3',
  puzzle: 'M2.500 6h3a1.700 1.700 0 1 1 3.300 0h2.700v2.700a1.700 1.700 0 1 1 0 3.300v1.500h-9z',
  sliders: 'M2 4.500h6M11 4.500h3M2 11.500h3M8 11.500h6M9.500 3v3M6.500 10v3',
  list: 'M5.500 4h8.500M5.500 8h8.500M5.500 12h8.500M2.300 4h.4M2.300 8h.4M2.300 12h.4',
  search: 'M2.500 7a4.500 4.500 0 1 0 9 0a4.500 4.500 0 1 0-9 0M10.300 10.300l3.400 3.400',
  power: 'M8 2v5.500M4.700 4.300a5 5 0 1 0 6.600 0',
  link: 'M6.500 9.500l3-3M7 4.500l1-1a3 3 0 0 1 4.200 4.200l-1 1M9 11.500l-1 1A3 3 0 0 1 3.800 8.300l1-1',
  crown: 'M2.500 12.500h11M2.500 10.500l-.8-6 3.300 2.500 3-4.500 3 4.500 3.300-2.500-.8 6z',
  bolt: 'M9 1.500L3.500 9H8l-1 5.500L12.500 7H8z',
};

const FILLED = new Set(['star', 'play', 'stop']);
const SVG = 'http://www.w3.org/2000/svg';

export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  const path = document.createElementNS(SVG, 'path');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', 'icon');
  svg.append(path);
  redraw(svg, name);
  return svg;
}

/** Changes the icon in place, if it differs. */
export function redraw(svg, name) {
  if (svg.dataset.icon === name) return;
  svg.dataset.icon = name;
  svg.classList.toggle('filled', FILLED.has(name));
  svg.firstChild.setAttribute('d', SHAPES[name] ?? SHAPES.question);
}
