// The telemetry: plots, the map and the values, from a feed of readings.

import { element } from "./dom.js";
import { follow } from "./feeds.js";
import { cellsOf, LOW, ofDrive, PLOTS, summaryOf, valuesOf } from "./findings.js";
import { Plot, WayMap } from "./plots.js";
import { Readings } from "./readings.js";
import { announce, kept, page, sentence, State } from "./status.js";
import { tail } from "./tailrace.js";
import { clock, count, number } from "./words.js";

const TIMEOUTS = { head: 20, idle: 30, event: Infinity }; // seconds; the server pings if it has no reading
const HIDDEN = 20_000; // milliseconds that a hidden tab keeps its connection: all tabs of a server share six
const BURST = 1_000; // milliseconds in which what was missed arrives
const ROWS = 30; // of the table
const FEWEST = 30; // readings that a plot has room for
const HINT = "Point at a plot to read its values, or use the arrow keys here.";
const RARELY = 30_000; // milliseconds between two spoken changes
const SPANS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880]; // minutes that the plots can span

export class Telemetry {
  #url;
  #readings = new Readings();
  #state = new State(page["telemetry-state"], "Telemetry");
  #feed = null;
  #leave = null;
  #after; // the cursor of the last reading before a rest
  #told = "off"; // the state of the feed
  #stale = false; // whether what is shown comes from before a reset
  #missed = 0; // readings that were filled in, as far as they have come
  #back = 0; // when the connection came back
  #chosen = null; // the moment that the user points at
  #spoken = { state: null, low: false, at: 0 };
  #news = ""; // what to say when the connection is back
  #frame = 0;
  #noted = ""; // what is said beside the state
  #timer = 0;
  #plots;
  #map;

  constructor(url) {
    this.#url = url;
    const redraw = () => this.#schedule();
    this.#plots = PLOTS.map((plot) => ({ ...plot, plot: new Plot(page[`${plot.id}-plot`], plot, redraw) }));
    this.#map = new WayMap(page["map-plot"], redraw);
    page.span.value = kept.get("span") ?? page.span.value;
    if (!page.span.value) page.span.selectedIndex = 1;
    page.span.addEventListener("change", () => {
      kept.set("span", page.span.value);
      this.#schedule();
    });
    page.table.addEventListener("toggle", redraw);
    this.#inspect();
    this.#rest();
    setInterval(() => this.#tick(), 1_000);
    this.#open();
  }

  #open() {
    this.#leave = new AbortController();
    this.#feed = follow(tail, this.#url, {
      after: this.#after,
      timeouts: TIMEOUTS,
      signal: this.#leave.signal,
      onEvent: (event) => this.#take(event),
      onState: (state) => this.#follow(state),
      onDegraded: (isDegraded) => (this.#state.late = isDegraded),
    });
  }

  #follow(now) {
    if (now.state === "open" && (this.#told === "waiting" || this.#told === "resting")) {
      this.#back = performance.now();
      this.#missed = 0;
    }
    if (now.state !== "connecting") this.#told = now.state;
    this.#state.feed(now);
    if (now.reason) this.#note(`${sentence(now.reason)} What arrived is kept.`, Infinity);
    else if (now.state === "open") this.#note(this.#news);
    if (now.state === "open") this.#news = "";
    this.#schedule();
  }

  #take({ event, data }) {
    if (event === "reset") {
      this.#stale = data.reason !== "trimmed";
      this.#news = this.#stale ? "The server has restarted, so its readings start again." : "Some readings are no longer kept.";
      return;
    }
    if (event === "dropped") return this.#note(`The server skipped ${count(data.count, "reading")}.`);
    if (event !== null) return;
    if (this.#stale) {
      this.#readings.clear();
      this.#back = 0;
    }
    this.#stale = false;
    this.#readings.add(data);
    if (this.#back) this.#missed += 1;
    this.#schedule();
  }

  /** Gives the connection back while nobody sees the page. */
  #rest() {
    let timer;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(timer);
      if (document.visibilityState === "visible") {
        if (this.#told === "resting") this.#open();
        return;
      }
      timer = setTimeout(() => {
        if (["ended", "failed", "refused", "replaced"].includes(this.#told)) return;
        this.#leave.abort();
        this.#after = this.#feed.cursor ?? undefined;
        this.#follow({ state: "resting" });
      }, HIDDEN);
    });
  }

  #tick() {
    const readings = this.#readings;
    if (this.#back && performance.now() - this.#back > BURST) {
      if (this.#missed > 1) this.#note(`Connected again: ${count(this.#missed, "reading")} filled in.`);
      this.#back = 0;
    }
    if (readings.empty || !readings.late) return;
    if (this.#told === "open" && !this.#feed.degraded) {
      this.#state.show("waiting", `No reading for ${Math.round(readings.silence / 1000)} s`);
    }
    this.#schedule();
  }

  // What is shown

  #schedule() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** The minutes that the plots span: about as many readings as the user chose, or fewer if there are no more yet. */
  get #span() {
    const { list, every, now } = this.#readings;
    const there = list.length ? Math.max(now - list[0].at, FEWEST * every) / 60_000 : Infinity;
    return Math.min(spanOf(Number(page.span.value), every), SPANS.find((one) => one >= there) ?? Infinity);
  }

  get #window() {
    const to = this.#readings.now;
    return [to - this.#span * 60_000, to];
  }

  #draw() {
    const readings = this.#readings;
    if (this.#told === "open" && !readings.late) this.#state.feed({ state: "open" });
    for (const option of page.span.options) put(option, wordsOf(spanOf(Number(option.value), readings.every)));
    const [from, to] = this.#window;
    const chosen = this.#chosen === null || readings.empty ? null : readings.nearest(this.#chosen);
    for (const { id, plot, finding } of this.#plots) {
      plot.draw(readings, from, to, chosen);
      if (readings.empty) continue;
      const { words, bad } = finding(readings);
      put(page[`${id}-title`], words);
      page[`${id}-title`].classList.toggle("bad", bad ?? false);
      page[`${id}-plot`].setAttribute("aria-label", `${words}. Plot of the last ${wordsOf(this.#span)}.`);
    }
    this.#map.draw(readings, chosen);
    this.#values(chosen);
    if (!readings.empty) this.#speak(readings.last);
    if (page.table.open) this.#rows();
  }

  #values(chosen) {
    const newest = this.#readings.empty ? "" : `Newest reading ${clock(this.#readings.last.at)} UTC`;
    put(page["telemetry-note"], this.#noted || newest);
    if (this.#readings.empty) return;
    const now = this.#readings.last;
    for (const [id, value] of Object.entries(valuesOf(now))) put(page[id], value);
    put(page["map-title"], ofDrive(now));
    page["map-plot"].setAttribute("aria-label", `${ofDrive(now)}. Map of the drive, north up.`);
    const faster = Math.round(this.#readings.speed);
    put(page.faster, faster > 1 ? `${faster}× real time` : "");
    put(page.moment, chosen ? summaryOf(chosen) : HINT);
    page.moment.setAttribute("aria-valuetext", summaryOf(chosen ?? now));
    page.moment.setAttribute("aria-valuemax", String(this.#readings.list.length));
    page.moment.setAttribute("aria-valuenow", String(this.#readings.list.indexOf(chosen ?? now) + 1));
    page.moment.classList.toggle("chosen", chosen !== null);
  }

  #note(words, milliseconds = 15_000) {
    clearTimeout(this.#timer);
    if (words && milliseconds < Infinity) this.#timer = setTimeout(() => this.#note(""), milliseconds);
    this.#noted = words;
    this.#schedule();
  }

  #rows() {
    const rows = this.#readings.list.slice(-ROWS).reverse();
    page.rows.replaceChildren(
      ...rows.map((reading) => {
        const [time, ...cells] = cellsOf(reading);
        const head = element("th", { scope: "row" }, [time]);
        return element("tr", {}, [head, ...cells.map((cell) => element("td", {}, [cell]))]);
      }),
    );
  }

  /** Tells screen readers, rarely, what changed in kind. */
  #speak({ state, battery: level }) {
    const spoken = this.#spoken;
    const low = level < LOW;
    const first = spoken.state === null;
    const news = state !== spoken.state || low !== spoken.low;
    if (!news || (!first && performance.now() - spoken.at < RARELY)) return;
    if (!first && state !== spoken.state) announce(`Rover: ${state}`);
    if (low && !spoken.low) announce(`Battery low, ${number(level)} percent`);
    this.#spoken = { state, low, at: performance.now() };
  }

  // Reading the plots

  #inspect() {
    const { moment } = page;
    for (const { id, plot } of this.#plots) {
      const point = ({ clientX, currentTarget }) => {
        const [from, to] = this.#window;
        this.#choose(plot.moment(clientX - currentTarget.getBoundingClientRect().left, from, to));
      };
      for (const name of ["pointerdown", "pointermove"]) page[`${id}-plot`].addEventListener(name, point);
      page[`${id}-plot`].addEventListener("pointerleave", ({ pointerType }) => {
        if (pointerType !== "touch") this.#choose(null); // a finger leaves so that its owner can read
      });
    }
    addEventListener("pointerdown", ({ target }) => {
      if (!target.closest(".plots")) this.#choose(null);
    });
    moment.addEventListener("blur", () => this.#choose(null));
    moment.addEventListener("keydown", (event) => {
      const { list } = this.#readings;
      if (!list.length) return;
      const at = this.#chosen === null ? list.length - 1 : list.indexOf(this.#readings.nearest(this.#chosen));
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageDown: -15, PageUp: 15, Home: -list.length, End: list.length };
      if (event.key === "Escape") return this.#choose(null);
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.#choose(list[Math.max(0, Math.min(list.length - 1, at + steps[event.key]))].at);
    });
  }

  #choose(moment) {
    if (moment !== null && this.#readings.empty) return;
    this.#chosen = moment;
    this.#schedule();
  }
}

/** Returns the round number of minutes that is nearest to the time of so many readings. */
function spanOf(readings, every) {
  const minutes = (readings * every) / 60_000;
  const off = (one) => Math.abs(Math.log(one / minutes));
  return SPANS.reduce((best, one) => (off(one) < off(best) ? one : best));
}

function wordsOf(minutes) {
  return minutes < 120 ? `${minutes} min` : `${minutes / 60} h`;
}

function put(place, words) {
  if (place.textContent !== words) place.textContent = words;
}
