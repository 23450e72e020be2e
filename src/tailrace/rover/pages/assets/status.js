// The elements of the page, what it says to screen readers, and the state of each feed in words.

/** The elements of the page by their ids. */
export const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));

const TOGETHER = 1_000; // milliseconds; what is announced within them is read as one text

let announced = [];

/** Announces a text to screen readers, together with others that come at the same time. */
export function announce(words) {
  if (announced.includes(words)) return;
  announced.push(words);
  if (announced.length > 1) return;
  setTimeout(() => {
    page.announcer.textContent = announced.join(". ");
    announced = [];
  }, TOGETHER);
}

const MARKS = {
  off: "off",
  idle: "off",
  resting: "off",
  connecting: "busy",
  loading: "busy",
  open: "good",
  late: "wait",
  complete: "good",
  waiting: "wait",
  paused: "wait",
  ended: "end",
  replaced: "end",
  refused: "bad",
  failed: "bad",
};

/** Shows a feed's state in its element: a mark and words. While it waits, the words count the seconds. */
export class State {
  #element;
  #name;
  #timer = 0;
  #told = "off";
  #late = false; // whether the server cannot reach its store

  /** `name` is what the feed is called when its connection is lost or there again. */
  constructor(element, name) {
    this.#element = element;
    this.#name = name;
  }

  set name(name) {
    this.#name = name;
  }

  /** Whether the server cannot reach its store, so that what it shows may be late. */
  set late(late) {
    this.#late = late;
    if (this.#told === (late ? "open" : "late")) this.feed({ state: "open" });
  }

  /** `state` chooses the mark; `words` says the state, and with `until` what happens then. */
  show(state, words, { until = null, reason = null } = {}) {
    clearInterval(this.#timer);
    this.#element.dataset.mark = MARKS[state];
    this.#element.title = reason ? sentence(reason) : "";
    const tell = () => {
      const text = until === null ? words : `${words} in ${Math.max(1, Math.ceil((until - Date.now()) / 1000))} s`;
      if (this.#element.textContent !== text) this.#element.textContent = text;
    };
    tell();
    if (until !== null) this.#timer = setInterval(tell, 250);
    this.#speak(state, words, reason);
  }

  /** Shows the state of a feed, as feeds.js tells it. */
  feed({ state, seconds, reason }) {
    if (state === "open" && this.#late) {
      return this.show("late", "Updates may be late", { reason: "the server cannot reach its store" });
    }
    const until = state === "waiting" ? Date.now() + seconds * 1_000 : null;
    const offline = state === "waiting" && !navigator.onLine;
    const words = {
      connecting: this.#told === "waiting" ? "Reconnecting" : "Connecting",
      open: "Connected",
      waiting: offline ? "Offline, next try" : "Reconnecting",
      ended: "Ended",
      failed: "Failed",
      refused: "Refused",
      replaced: "Open elsewhere",
      resting: "Resting while hidden",
      off: "Not connected",
    };
    return this.show(state, words[state], { until, reason });
  }

  #speak(state, words, reason) {
    const before = this.#told;
    if (state === "connecting") return; // it says nothing new to a listener
    this.#told = state;
    if (before === state || state === "off" || state === "resting" || state === "loading") return;
    if (state === "open" && before !== "waiting" && before !== "late") return;
    const open = before === "late" ? "up to date again" : "connected again";
    const again = state === "open" ? open : words.toLowerCase();
    announce(`${this.#name}: ${again}${state === "refused" && reason ? `, ${reason}` : ""}`);
  }
}

/** Returns a text with a capital and a full stop. */
export function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** Values that outlive the page, if the browser lets it keep them. */
export const kept = {
  get(key, store = localStorage) {
    try {
      return store.getItem(`tailrace-rover-${key}`);
    } catch {
      return null;
    }
  },
  set(key, value, store = localStorage) {
    try {
      if (value) store.setItem(`tailrace-rover-${key}`, value);
      else store.removeItem(`tailrace-rover-${key}`);
    } catch {
      // The page works without it.
    }
  },
};
