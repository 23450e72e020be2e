// Draws values over time, and the way of the rover, as SVG. A drawing's unit is a pixel, so texts keep their size.

import { clock } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { top: 10, right: 66, bottom: 24, left: 56 }; // the same for all plots, so that their times align
const LEVELS = 3; // lines across a plot, more or less
const MINUTE = 60_000;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440].map((minutes) => minutes * MINUTE);

function node(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== null) made.textContent = text;
  return made;
}

const tenth = (value) => Math.round(value * 10) / 10;

/** Returns a round step that divides a span into about that many parts. */
function stepOf(span, about) {
  const raw = span / about;
  const unit = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * unit).find((one) => one >= raw * 0.999);
}

/** Returns the multiples of a step in a range. */
function ticks(low, high, step) {
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + step * 1e-9; tick++) found.push(tick * step);
  return found;
}

class Drawing {
  constructor(svg, redraw) {
    this.svg = svg;
    new ResizeObserver(([{ contentRect: { width, height } }]) => {
      if (!width) return;
      [this.width, this.height] = [width, height];
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      redraw();
    }).observe(svg);
  }
}

/** A plot of one or two values over time. */
export class Plot extends Drawing {
  #series;
  #range;
  #unit;
  #low = 0;
  #high = 1;
  #step = 1;

  /**
   * `series` has {name, value}, where `value` returns the value of a reading. `range` is [low, high] if it is fixed,
   * and otherwise the least number of units that the axis spans.
   */
  constructor(svg, { series, range, unit }, redraw) {
    super(svg, redraw);
    this.#series = series;
    this.#range = range;
    this.#unit = unit;
  }

  /** Returns the moment at a place, in pixels from the left edge. */
  moment(x, from, to) {
    return from + ((x - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right)) * (to - from);
  }

  draw(readings, from, to, chosen) {
    if (!this.width) return;
    const runs = readings.runs(from);
    this.#scale(runs.flat().filter(({ at }) => at >= from));
    const { left, top, bottom } = MARGIN;
    const [right, floor] = [this.width - MARGIN.right, this.height - bottom];
    const x = (at) => tenth(left + ((at - from) / (to - from)) * (right - left));
    const y = (value) => tenth(floor - ((value - this.#low) / (this.#high - this.#low)) * (floor - top));
    const clip = `clip-${this.svg.id}`;
    const frame = { x: left, y: top - 4, width: Math.max(0, right - left + 4), height: floor - top + 8 };
    const defs = node("defs");
    defs.append(node("clipPath", { id: clip }));
    defs.firstChild.append(node("rect", frame));
    const inside = node("g", { "clip-path": `url(#${clip})` });
    inside.append(...this.#gaps(readings, from, to, x, top, floor), ...this.#lines(runs, x, y));
    const parts = [defs, ...this.#levels(left, right, y), ...this.#times(from, to, x, floor), inside];
    if (!readings.empty && this.#series.length > 1) parts.push(...this.#names(readings.last, right, y, top, floor));
    if (chosen) parts.push(...this.#chosen(chosen, x, y, top, floor));
    this.svg.replaceChildren(...parts);
  }

  /** Chooses a scale that holds all values. It grows and shrinks by whole steps, so that it seldom moves. */
  #scale(shown) {
    const values = shown.flatMap((reading) => this.#series.map(({ value }) => value(reading)));
    const fixed = Array.isArray(this.#range) ? this.#range : values.length ? null : [0, this.#range];
    const [least, most] = fixed ?? [Math.min(...values), Math.max(...values)];
    const missing = fixed ? 0 : Math.max(0, this.#range - (most - least)) / 2;
    const step = stepOf(most - least + 2 * missing, LEVELS);
    this.#low = Math.floor((least - missing) / step) * step;
    this.#high = Math.ceil((most + missing) / step) * step;
    this.#step = step;
  }

  #levels(left, right, y) {
    return ticks(this.#low, this.#high, this.#step).flatMap((level, index, all) => [
      node("line", { class: "grid", x1: left, x2: right, y1: y(level), y2: y(level) }),
      node("text", { class: "label", x: left - 8, y: y(level) + 4, "text-anchor": "end" },
        `${level}`.replace("-", "−") + (index === all.length - 1 ? ` ${this.#unit}` : "")),
    ]);
  }

  #times(from, to, x, floor) {
    const room = (this.width - MARGIN.left - MARGIN.right) / 64;
    const step = STEPS.find((one) => (to - from) / one <= room) ?? STEPS.at(-1);
    const parts = [node("line", { class: "axis", x1: x(from), x2: x(to), y1: floor, y2: floor })];
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      parts.push(node("line", { class: "axis", x1: x(at), x2: x(at), y1: floor, y2: floor + 4 }));
      const words = clock(at, { withSeconds: false });
      const place = Math.min(x(at), this.width - 18);
      parts.push(node("text", { class: "label", x: place, y: floor + 18, "text-anchor": "middle" }, words));
    }
    return parts;
  }

  #gaps(readings, from, to, x, top, floor) {
    return readings.gaps(from, to).flatMap(([a, b]) => {
      const [start, end] = [x(Math.max(a, from)), x(b)];
      const parts = [node("rect", { class: "gap", x: start, y: top, width: tenth(end - start), height: floor - top })];
      if (end - start > 76) {
        const place = { x: tenth((start + end) / 2), y: top + 14, "text-anchor": "middle" };
        parts.push(node("text", { class: "label", ...place }, "no readings"));
      }
      return parts;
    });
  }

  #lines(runs, x, y) {
    return this.#series.flatMap(({ value }, index) => {
      const second = index > 0 ? " second" : "";
      return runs.map((run) => {
        const [one] = run;
        const dot = { class: `dot${second}`, cx: x(one.at), cy: y(value(one)), r: 1.5 };
        if (run.length === 1) return node("circle", dot);
        const d = run.map((each, place) => `${place ? "L" : "M"}${x(each.at)} ${y(value(each))}`).join("");
        return node("path", { class: `series${second}`, d });
      });
    });
  }

  #names(last, right, y, top, floor) {
    const places = this.#series.map(({ value }) => Math.max(top + 4, Math.min(floor, y(value(last)) + 4)));
    const [first, second] = places;
    if (Math.abs(first - second) < 14) places[0] = second + (first < second ? -14 : 14);
    return this.#series.map(({ name }, index) =>
      node("text", { class: index > 0 ? "name second" : "name", x: right + 8, y: places[index] }, name),
    );
  }

  #chosen(reading, x, y, top, floor) {
    const dots = this.#series.map(({ value }, index) =>
      node("circle", { class: index > 0 ? "dot second" : "dot", cx: x(reading.at), cy: y(value(reading)), r: 4 }),
    );
    return [node("line", { class: "chosen", x1: x(reading.at), x2: x(reading.at), y1: top, y2: floor }), ...dots];
  }
}

const EDGE = 28; // pixels around the way
const LEAST = 10; // metres that the map spans at least

/** The way of the rover, seen from above, north up. */
export class WayMap extends Drawing {
  draw(readings, chosen) {
    if (!this.width) return;
    const runs = readings.runs(-Infinity);
    const [x, y, scale] = this.#scale(readings.list);
    const parts = this.#grid(x, y, scale);
    for (const run of runs) {
      const d = run.map(({ location }, place) => `${place ? "L" : "M"}${x(location.x)} ${y(location.y)}`).join("");
      parts.push(node("path", { class: "series", d }));
    }
    if (!readings.empty) {
      const { location } = readings.list[0];
      parts.push(node("circle", { class: "start", cx: x(location.x), cy: y(location.y), r: 4 }));
      parts.push(this.#rover(chosen ?? readings.last, x, y));
    }
    parts.push(...this.#bar(scale), ...this.#north());
    this.svg.replaceChildren(...parts);
  }

  /** Chooses a scale that holds the way. Its bounds move by whole steps. */
  #scale(list) {
    const bounds = (values) => (values.length ? [Math.min(...values), Math.max(...values)] : [0, 0]);
    const span = ([low, high]) => high - low;
    let east = bounds(list.map(({ location }) => location.x));
    let north = bounds(list.map(({ location }) => location.y));
    const step = Math.max(LEAST, 10 ** Math.floor(Math.log10(Math.max(span(east), span(north), 1)))) / 4;
    const round = ([low, high]) => [Math.floor(low / step) * step, Math.ceil((high + 1e-9) / step) * step];
    [east, north] = [round(east), round(north)];
    const room = (length, size) => (length - 2 * EDGE) / Math.max(size, LEAST);
    const scale = Math.min(room(this.width, span(east)), room(this.height, span(north)));
    const [cx, cy] = [(east[0] + east[1]) / 2, (north[0] + north[1]) / 2];
    const x = (metres) => tenth(this.width / 2 + (metres - cx) * scale);
    const y = (metres) => tenth(this.height / 2 - (metres - cy) * scale);
    return [x, y, scale];
  }

  #metres(scale) {
    return stepOf(this.width / scale, 5);
  }

  #grid(x, y, scale) {
    const step = this.#metres(scale);
    const parts = [];
    const metres = { x: (this.width / 2 - x(0)) / scale, y: (y(0) - this.height / 2) / scale };
    for (let at = Math.ceil((metres.x - this.width / 2 / scale) / step); x(at * step) < this.width; at++) {
      parts.push(node("line", { class: "grid", x1: x(at * step), x2: x(at * step), y1: 0, y2: this.height }));
    }
    for (let at = Math.ceil((metres.y - this.height / 2 / scale) / step); y(at * step) > 0; at++) {
      parts.push(node("line", { class: "grid", x1: 0, x2: this.width, y1: y(at * step), y2: y(at * step) }));
    }
    return parts;
  }

  #rover({ location, heading }, x, y) {
    const turned = `translate(${x(location.x)} ${y(location.y)}) rotate(${heading})`;
    return node("path", { class: "rover", d: "M0 -11L7 8L0 4L-7 8Z", transform: turned });
  }

  #bar(scale) {
    const metres = this.#metres(scale);
    const [left, bottom, length] = [12, this.height - 12, metres * scale];
    return [
      node("path", { class: "bar", d: `M${left} ${bottom - 5}v5h${tenth(length)}v-5` }),
      node("text", { class: "label", x: left + length / 2, y: bottom - 6, "text-anchor": "middle" }, `${metres} m`),
    ];
  }

  #north() {
    const x = this.width - 20;
    return [
      node("path", { class: "bar", d: `M${x} 34V14m-4 6l4 -6l4 6` }),
      node("text", { class: "label", x, y: 48, "text-anchor": "middle" }, "N"),
    ];
  }
}
