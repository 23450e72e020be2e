// The image from the rover: what has arrived of it, how fast, and what is to be done with it.

import { Download } from "./download.js";
import { kept, page, State } from "./status.js";
import { Viewer } from "./viewer.js";
import { amount, percent, seconds } from "./words.js";

const OFTEN = 300; // milliseconds between two drawings of what has arrived
const SHARE = 4; // a drawing may take one part in so many of the time

export function showImage(url) {
  const state = new State(page["image-state"], "Image");
  const viewer = new Viewer(page.viewer, (size) => {
    page.scale.textContent = size === null ? "" : `${size} %`;
  });
  const painter = new Painter(viewer);
  const download = new Download(url, (now) => {
    tell(state, now);
    painter.paint(now);
  });

  page.transfer.addEventListener("click", () => {
    if (["connecting", "loading", "waiting"].includes(download.state)) download.pause();
    else download.start();
  });
  page.limit.value = kept.get("limit") ?? "";
  download.limit = Number(page.limit.value) || Infinity;
  page.limit.addEventListener("change", () => {
    kept.set("limit", page.limit.value);
    download.limit = Number(page.limit.value) || Infinity;
  });
  page.larger.addEventListener("click", () => viewer.enlarge());
  page.smaller.addEventListener("click", () => viewer.reduce());
  page.fit.addEventListener("click", () => viewer.fit());
  page.full.addEventListener("click", () => viewer.full());
  download.start();
}

const ACTIONS = {
  idle: "Load",
  connecting: "Pause",
  loading: "Pause",
  waiting: "Pause",
  paused: "Resume",
  complete: "Refresh",
  failed: "Try again",
};

function tell(state, download) {
  const { received, total, until, reason, unchanged } = download;
  const part = total ? percent(received / total) : null;
  const words = {
    idle: "Not loaded",
    connecting: received ? `Reconnecting at ${part ?? amount(received)}` : "Connecting",
    loading: part ? `Loading ${part}` : "Loading",
    waiting: `${navigator.onLine ? "Reconnecting" : "Offline, next try"}`,
    paused: part ? `Paused at ${part}` : "Paused",
    complete: unchanged ? "Complete, still the newest" : "Complete",
    failed: "Failed",
  };
  state.show(download.state, words[download.state], { until, reason });
  page.transfer.textContent = ACTIONS[download.state];
  page.progress.value = total ? received / total : 0;
  page.progress.hidden = download.state === "complete";
  page.figures.textContent = figures(download);
  page.happened.textContent = happened(download);
}

/** Returns what the user should know beyond the state, if there is anything. */
function happened({ state, reason, received, changed }) {
  if (state === "failed") return `Not loaded: ${reason}.`;
  if (reason) return `${capital(reason)}.${received ? " What arrived is kept." : ""}`;
  if (received === 0) return "The image appears here as it arrives.";
  return changed && state !== "complete" ? "The image changed on the server, so the download starts again." : "";
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function figures({ state, received, total, rate, seconds: time }) {
  if (received === 0) return "0 kB";
  const facts = [total && received < total ? `${amount(received)} of ${amount(total)}` : amount(received)];
  if (rate > 0) facts.push(`${amount(rate)}/s`);
  facts.push(seconds(time));
  if (state === "loading" && total && rate > 0) facts.push(`${seconds((total - received) / rate)} left`);
  return facts.join(" · ");
}

/** Draws what has arrived. A browser decodes the part of a JPEG that is there, so each drawing is a whole picture. */
class Painter {
  #viewer;
  #painting = false;
  #drawn = ""; // how much of what is drawn
  #next = 0;

  constructor(viewer) {
    this.#viewer = viewer;
  }

  async paint(download) {
    const { state, received, total } = download;
    const part = state === "complete" || received === total ? "" : `, ${percent(received / total)} received`;
    const drawn = `${received}${part}`;
    if (this.#painting || received === 0 || drawn === this.#drawn) return;
    if (state === "loading" && performance.now() < this.#next) return;
    this.#painting = true;
    const began = performance.now();
    this.#drawn = drawn;
    await this.#draw(download.blob, part);
    this.#next = performance.now() + Math.max(OFTEN, SHARE * (performance.now() - began));
    this.#painting = false;
    if (download.state !== "loading") this.paint(download); // what came meanwhile
  }

  async #draw(blob, part) {
    const picture = new Image();
    const url = URL.createObjectURL(blob);
    picture.src = url;
    picture.alt = `Panorama from the rover’s mast camera${part}`;
    try {
      await picture.decode();
      this.#viewer.show(picture);
    } catch {
      if (part === "") page.happened.textContent = "This browser cannot show the file as an image.";
    } finally {
      URL.revokeObjectURL(url);
    }
  }
}
