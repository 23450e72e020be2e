// The state of the connection, shown once, in the header.

import { setIcon } from "./icons.js";
import { announce } from "./notices.js";
import { page } from "./page.js";

const SECOND = 1000;

const sources = new Map(); // the state of each stream that is read, by its name
let until = 0; // the time of the next attempt
let timer = 0;
let lost = false;

/** Tells the state of a stream: {state, seconds}, as the client has it, or null when it is no longer read. */
export function report(name, state) {
  if (state === null || state.state === "ended" || state.state === "failed") sources.delete(name);
  else sources.set(name, state);
  if (state?.state === "waiting") until = Date.now() + state.seconds * SECOND;
  show();
}

/** Shows that the server wants an API key. */
export function needKey() {
  sources.clear();
  mark("key", "API key needed");
}

/** Returns a promise that is fulfilled when a new attempt is likely to succeed, or is wanted. */
export function wake(signal) {
  return new Promise((resolve) => {
    const wanted = () => document.visibilityState === "visible" && resolve();
    addEventListener("online", resolve, { signal });
    document.addEventListener("visibilitychange", wanted, { signal });
    page.hurry.addEventListener("click", resolve, { signal });
  });
}

function show() {
  clearInterval(timer);
  const states = [...sources.values()].map(({ state }) => state);
  if (states.includes("waiting")) return showLoss();
  if (states.includes("open")) return showConnected();
  if (states.length && !lost) mark("connecting", "Connecting");
  else if (states.length) mark("lost", "Reconnecting");
  return undefined;
}

function showLoss() {
  if (!lost) announce("No response from the server. Reconnecting.");
  lost = true;
  count();
  timer = setInterval(count, SECOND);
}

function showConnected() {
  if (lost) announce("Connected again");
  lost = false;
  mark("connected", "Connected");
}

function count() {
  const left = Math.round((until - Date.now()) / SECOND);
  if (!navigator.onLine) return mark("lost", "Offline");
  return mark("lost", left > 0 ? `Reconnecting in ${left} s` : "Reconnecting", left > 1);
}

function mark(name, words, canHurry = false) {
  page.hurry.hidden = !canHurry;
  if (page.state.textContent === words) return;
  page.connection.dataset.mark = name;
  setIcon(page.connection.firstElementChild, name);
  page.state.textContent = words;
}

for (const change of ["online", "offline"]) addEventListener(change, () => lost && count());
