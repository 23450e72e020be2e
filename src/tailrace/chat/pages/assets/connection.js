// The state of the connection, shown once, in the header.

import { setIcon } from "./icons.js";
import { announce } from "./notices.js";
import { page } from "./page.js";

const SECOND = 1000;
const GRACE = 500; // milliseconds in which a new connection is made without a word

const sources = new Map(); // the state of each stream that is read, by its name
const degraded = new Set(); // the names of streams whose server cannot reach its store
let until = 0; // the time of the next attempt
let counting = 0; // the timer that counts the seconds to the next attempt
let doubting = 0; // the timer of a loss that may be over in a moment
let settling = 0; // the timer after which the page is on time again, unless another stream says otherwise
let lost = false;
let busy = false; // whether the server has asked to wait
let late = false; // whether the page shows that updates may be late

/**
 * Tells the state of a stream, or null when it is no longer read: {state, seconds}, as the client has it, and `isBusy`,
 * whether the server has asked for the wait.
 */
export function report(name, state) {
  if (state === null || state.state === "ended" || state.state === "failed") sources.delete(name);
  else sources.set(name, state);
  if (state?.state === "waiting") {
    until = Date.now() + state.seconds * SECOND;
    busy = state.isBusy ?? false;
  }
  show();
}

/** Tells whether the server of a stream cannot reach its store, so that what happens may be shown late. */
export function reportDegraded(name, isDegraded) {
  if (isDegraded) degraded.add(name);
  else degraded.delete(name);
  show();
}

/** Shows that the server wants an API key. */
export function needKey() {
  sources.clear();
  show();
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
  clearInterval(counting);
  clearTimeout(settling);
  const states = new Set([...sources.values()].map(({ state }) => state));
  const isConnected = states.has("open") && !states.has("waiting");
  if (isConnected || states.size === 0) {
    clearTimeout(doubting);
    doubting = 0;
    if (isConnected) showConnected();
  } else if (!["connected", "late"].includes(page.connection.dataset.mark)) showTrouble(states);
  else doubting ||= setTimeout(doubt, GRACE);
}

function doubt() {
  doubting = 0;
  showTrouble(new Set([...sources.values()].map(({ state }) => state)));
}

function showTrouble(states) {
  if (states.has("waiting")) showLoss();
  else if (lost) mark("lost", busy ? "Server busy" : "Reconnecting");
  else mark("connecting", "Connecting");
}

function showLoss() {
  if (!lost) announce(busy ? "The server is busy. Waiting." : "Connection lost. Reconnecting.");
  lost = true;
  count();
  counting = setInterval(count, SECOND);
}

function showConnected() {
  if (lost) announce("Connected again");
  const isOver = late && degraded.size === 0;
  // One stream may just have taken the place of another, and will be told the same.
  if (isOver && !lost) settling = setTimeout(showOnTime, GRACE);
  else if (degraded.size > 0) showLate();
  else mark("connected", "Connected");
  late = late && !(isOver && lost);
  lost = false;
}

function showLate() {
  if (!late) announce("The server cannot reach its store. Updates may be late.");
  late = true;
  mark("late", "Updates may be late");
}

function showOnTime() {
  late = false;
  announce("Up to date again");
  mark("connected", "Connected");
}

function count() {
  const left = Math.round((until - Date.now()) / SECOND);
  if (!navigator.onLine) return mark("lost", "Offline");
  if (busy) return mark("lost", left > 0 ? `Server busy, retry in ${left} s` : "Server busy", left > 1);
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
