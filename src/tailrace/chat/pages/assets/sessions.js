// The list of sessions beside the conversation, and its search.

import { element } from "./dom.js";
import { page } from "./page.js";
import { ask } from "./server.js";
import { SessionRow } from "./session_row.js";
import { ageOf } from "./words.js";

const PAGE = 30;
const MOST = 200; // sessions that the server lists at a time
const TYPING = 200; // milliseconds without a key before the search begins

export class Sessions {
  #act;
  #rows = new Map(); // the rows that are shown, by the sessions' ids
  #current = null;
  #next = null;
  #latest = 0;
  #isWanted = false; // whether another refresh is wanted after the one that runs
  #running = null;
  #order = ""; // of the rows on the page

  /** `act` has the actions open(id), rename(session, title), choose(session, button) and trying(function). */
  constructor(act) {
    this.#act = act;
    let timer = 0;
    page.search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => act.trying(() => this.#load(PAGE)), TYPING);
    });
    page.more.addEventListener("click", () => act.trying(() => this.#more()));
  }

  /** Marks the current session. */
  mark(sessionId) {
    this.#current = sessionId;
    for (const row of this.#rows.values()) row.mark(sessionId);
  }

  /** Loads the newest sessions. Calls that come while it does so share one further load. */
  refresh() {
    this.#isWanted = true;
    this.#running ??= this.#refresh().finally(() => (this.#running = null));
    return this.#running;
  }

  /** Returns the title of a session in the list, if it has one. */
  titleOf(sessionId) {
    return this.#rows.get(sessionId)?.session.title;
  }

  /** Lets the user give a session another title. */
  rename(sessionId) {
    this.#rows.get(sessionId)?.edit();
  }

  focus(sessionId) {
    const row = this.#rows.get(sessionId);
    if (row) row.link.focus();
    else page.new.focus();
  }

  async #refresh() {
    while (this.#isWanted) {
      this.#isWanted = false;
      await this.#load(Math.min(MOST, Math.max(PAGE, this.#rows.size)));
    }
  }

  async #load(limit) {
    const turn = ++this.#latest;
    const words = page.search.value.trim();
    const found = await ask("GET", "sessions", { limit, ...(words ? { q: words } : {}) });
    if (turn !== this.#latest) return; // a later one was faster
    if ([...this.#rows.values()].some((row) => row.isEdited)) return; // the list would take the field away
    this.#show(found.sessions, found.next, words);
  }

  async #more() {
    const words = page.search.value.trim();
    const found = await ask("GET", "sessions", { limit: PAGE, after: this.#next, ...(words ? { q: words } : {}) });
    const [first] = found.sessions;
    const shown = [...this.#rows.values()].map((row) => row.session);
    this.#show([...shown, ...found.sessions], found.next, words);
    if (first) this.#rows.get(first.session_id).link.focus();
  }

  #show(sessions, next, words) {
    this.#next = next;
    this.#rows = new Map(sessions.map((session) => [session.session_id, this.#rowOf(session)]));
    this.#arrange();
    page.more.hidden = next === null;
    page.more.textContent = words ? "Search older sessions" : "More sessions";
    page.none.hidden = sessions.length > 0;
    page.none.textContent = none(words, next);
  }

  /** Returns the row of a session. One that is there stays the same, so that a menu or the focus in it stays, too. */
  #rowOf(session) {
    const row = this.#rows.get(session.session_id)?.update(session) ?? new SessionRow(session, this.#act);
    row.mark(this.#current);
    return row;
  }

  /** Puts the rows on the page, unless they are there in this order. */
  #arrange() {
    const rows = [...this.#rows.values()];
    const order = rows.map(({ session }) => `${session.session_id} ${ageOf(session.updated)}`).join();
    if (order === this.#order) return;
    this.#order = order;
    const focused = page.list.contains(document.activeElement) ? document.activeElement : null;
    page.list.replaceChildren(...groups(rows));
    focused?.focus();
  }
}

function none(words, next) {
  if (!words) return "None yet. Your first message starts one.";
  return next === null ? `No session contains “${words}”.` : `None of the newer sessions contains “${words}”.`;
}

/** Returns the rows in sections by the day on which the sessions were last used. */
function groups(rows) {
  const sections = new Map();
  for (const row of rows) {
    const age = ageOf(row.session.updated);
    if (!sections.has(age)) sections.set(age, element("ul"));
    sections.get(age).append(row.item);
  }
  return [...sections].map(([age, list]) => element("section", {}, [element("h3", {}, [age]), list]));
}
