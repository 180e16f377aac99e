// Line charts of two sides over time, as SVG. A chart is read by pointing, or by the arrow keys when it has the focus.
"use strict";

import {NONE, duration, trimmed} from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 150, LEFT = 58, RIGHT = 8, TOP = 8, BOTTOM = 22;
const ROLES = ["source", "shadow"];

function element(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

// The least 1, 2 or 5 times a power of ten that is no less.
function round(x) {
  const size = 10 ** Math.floor(Math.log10(x));
  return [1, 2, 5, 10].map((d) => d * size).find((y) => y >= x * 0.9999);
}

const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 432000];

export class Chart {
  constructor(host, title, format) {
    this.title = title;
    this.format = format;
    this.at = null;  // the step that is read; null for the last
    this.figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const heading = document.createElement("h3");
    heading.textContent = title;
    this.reading = document.createElement("p");
    caption.append(heading, this.reading);
    this.svg = element("svg", {role: "img", tabindex: "0", height: HEIGHT});
    this.figure.append(caption, this.svg);
    host.append(this.figure);
    this.svg.addEventListener("pointermove", (event) => this.read(this.stepAt(event.offsetX)));
    this.svg.addEventListener("pointerleave", () => this.read(null));
    this.svg.addEventListener("focus", () => { this.reading.ariaLive = "polite"; });
    this.svg.addEventListener("blur", () => { this.reading.ariaLive = "off"; this.read(null); });
    this.svg.addEventListener("keydown", (event) => this.move(event));
    new ResizeObserver(() => this.draw()).observe(this.figure);
  }

  // `lines`: {at_s, step_s, source: [...], shadow: [...]}
  update(lines) {
    this.lines = lines;
    this.draw();
  }

  move(event) {
    const last = this.lines.at_s.length - 1;
    const from = this.at ?? last;
    const to = {ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last}[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.read(Math.min(Math.max(to, 0), last));
  }

  stepAt(x) {
    const n = this.lines.at_s.length;
    return n ? Math.min(Math.max(Math.round(((x - LEFT) / this.plot) * this.span / this.lines.step_s - 0.5), 0), n - 1) : null;
  }

  read(step) {
    this.at = step;
    this.draw();
  }

  draw() {
    const lines = this.lines, width = Math.floor(this.figure.clientWidth);
    if (!lines || width < 120) return;
    const n = lines.at_s.length, step = Math.min(this.at ?? n - 1, n - 1);
    this.plot = width - LEFT - RIGHT;
    this.span = Math.max(n, 1) * lines.step_s;
    const known = ROLES.flatMap((role) => lines[role]).filter((x) => x !== null);
    const most = known.length && Math.max(...known) > 0 ? round(Math.max(...known)) : 1;
    const x = (i) => LEFT + (this.plot * (i + 0.5) * lines.step_s) / this.span;
    const y = (v) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - v / most);
    const marks = [];
    for (const part of [0, 0.5, 1]) {
      marks.push(element("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(part * most), y2: y(part * most)}));
      marks.push(element("text", {x: LEFT - 6, y: y(part * most) + 4, "text-anchor": "end"}, trimmed(this.format(part * most))));
    }
    const every = TIMES.find((t) => (this.plot * t) / this.span >= 70) ?? this.span;
    for (let t = 0; t <= this.span + 1e-9; t += every) {
      const at = LEFT + (this.plot * t) / this.span;
      const anchor = at > width - 30 ? "end" : t ? "middle" : "start";
      marks.push(element("text", {x: at, y: HEIGHT - 6, "text-anchor": anchor}, duration(t)));
    }
    if (this.at !== null) {
      marks.push(element("line", {class: "cursor", x1: x(step), x2: x(step), y1: TOP, y2: HEIGHT - BOTTOM}));
    }
    for (const role of ROLES) marks.push(...this.line(lines[role], role, x, y));
    const texts = ROLES.map((role) => `${role} ${n ? this.format(lines[role][step]) : NONE}`);
    const when = this.at === null ? "last" : `at ${duration(lines.at_s[step] ?? 0)}`;
    const reading = known.length ? `${when}: ${texts.join(", ")}` : "nothing yet";
    if (this.reading.textContent !== reading) this.reading.textContent = reading;
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute("aria-label", `${this.title}, ${reading}. Arrow keys read other moments.`);
    this.svg.replaceChildren(...marks);
  }

  line(values, role, x, y) {
    const marks = [];
    let path = "", run = 0;
    values.forEach((v, i) => {
      if (v === null) { run = 0; return; }
      path += `${run ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
      run += 1;
      if (run === 1 && (i + 1 === values.length || values[i + 1] === null)) {
        marks.push(element("circle", {class: role, cx: x(i), cy: y(v), r: 2.5}));
      }
    });
    if (path) marks.unshift(element("path", {class: role, d: path}));
    return marks;
  }
}
