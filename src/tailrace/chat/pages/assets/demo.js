// The chat page: puts its parts together.

import { Changes } from "./changes.js";
import { Composer } from "./composer.js";
import { needKey } from "./connection.js";
import { Conversation } from "./conversation.js";
import { showExamples } from "./examples.js";
import { toggleMenu } from "./menu.js";
import { announce, askForKey, closeNotice, consent, notice } from "./notices.js";
import { page } from "./page.js";
import { Protocol } from "./protocol.js";
import { Refusal } from "./refusal.js";
import { ask } from "./server.js";
import { addressOf, titleOf } from "./session_row.js";
import { Sessions } from "./sessions.js";
import { toggleSide } from "./side.js";
import { problem } from "./words.js";

const CONSEQUENCE = "Its messages are deleted, and a reply in progress is stopped. You cannot undo this.";

const composer = new Composer({ send: (text, key) => conversation.send(text, key), stop: () => conversation.stop() });
const sessions = new Sessions({ open, rename, choose, trying });
const conversation = new Conversation(composer, new Protocol(), {
  opened: (session) => setTitle(titleOf(session)),
  begun,
  left: () => changes.rest(false),
  ended: () => later(sessions.refresh()),
  gone,
  failed,
});
const changes = new Changes({ change: changed, missed, failed });
let starting = null; // the first requests, while they run
let isStarted = false; // whether the server has answered

// Failures

/** Calls a function, and shows its error if it fails. */
async function trying(what) {
  try {
    await what();
  } catch (error) {
    failed(error, () => trying(what));
  }
}

function failed(error, again = start) {
  if (error.status === 401) {
    needKey();
    return askForKey(() => {
      changes.follow();
      return trying(again);
    });
  }
  if (error.status === undefined && !(error instanceof TypeError)) console.error(error);
  return notice(problem(error), { label: "Try again", act: again });
}

/** Ignores that the list of sessions comes late: the connection's state says why. */
function later(promise) {
  promise.catch(() => {});
}

// Changes of sessions

function changed({ change, session_id: sessionId, stream_id: streamId, title }) {
  later(sessions.refresh());
  if (sessionId !== conversation.id) return;
  if (title) setTitle(title);
  if (change === "deleted") conversation.deleted();
  else if (!conversation.knows(streamId)) later(conversation.refresh());
}

function missed() {
  if (!isStarted) return trying(start);
  later(sessions.refresh());
  return later(conversation.refresh());
}

function begun(sessionId) {
  changes.rest(true);
  if (sessionOfAddress() !== sessionId) history.replaceState(null, "", addressOf(sessionId));
  sessions.mark(sessionId);
  later(sessions.refresh().then(() => sessionId === conversation.id && setTitle(sessions.titleOf(sessionId))));
}

function gone(words, text = "") {
  open(null, { replace: true });
  if (text) composer.restore(text);
  notice(words);
}

// The user's actions

/** Opens a session, or a new one. */
function open(sessionId, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", addressOf(sessionId));
  toggleSide(false);
  return show(sessionId);
}

function show(sessionId) {
  if (page.key.hidden) {
    closeNotice();
    if (!matchMedia("(pointer: coarse)").matches) page.message.focus(); // which would open the keyboard on the screen
  }
  setTitle(null);
  sessions.mark(sessionId);
  return trying(() => conversation.load(sessionId));
}

function rename(session, title) {
  return trying(async () => {
    await ask("PATCH", pathOf(session), {}, { title });
    announce("Renamed");
    if (session.session_id === conversation.id) setTitle(title);
    await sessions.refresh();
  });
}

function choose(session, button) {
  const actions = { rename: () => sessions.rename(session.session_id), clear, delete: remove };
  toggleMenu(button, (choice) => actions[choice](session));
}

async function clear(session) {
  const question = `Clear “${titleOf(session)}”?`;
  if (!(await consent(question, CONSEQUENCE, "Clear"))) return;
  await trying(async () => {
    await ask("POST", `${pathOf(session)}/clear`);
    announce("Cleared");
    if (session.session_id === conversation.id) await conversation.load(conversation.id);
    await sessions.refresh();
  });
}

async function remove(session) {
  const question = `Delete “${titleOf(session)}”?`;
  if (!(await consent(question, CONSEQUENCE, "Delete"))) return;
  await trying(async () => {
    const isShown = session.session_id === conversation.id;
    if (isShown) open(null, { replace: true });
    await ask("DELETE", pathOf(session)).catch(unlessGone);
    announce("Deleted");
    await sessions.refresh();
    page.new.focus();
  });
}

function unlessGone(error) {
  if (!(error instanceof Refusal && error.status === 404)) throw error;
}

function pathOf(session) {
  return `sessions/${encodeURIComponent(session.session_id)}`;
}

function setTitle(title) {
  document.title = title ? `${title} – tailrace chat` : "tailrace chat";
}

function sessionOfAddress() {
  return new URLSearchParams(location.search).get("session");
}

/** Asks what the server is, and shows the session of the address. Calls that come meanwhile share the answer. */
function start() {
  starting ??= welcome().finally(() => (starting = null));
  return starting;
}

async function welcome() {
  const server = await ask("GET", "");
  isStarted = true;
  const isPrepared = server.model === "demo";
  conversation.model = server.model;
  page.model.textContent = isPrepared ? "Demo model, not an AI" : `Model: ${server.model}`;
  page.prepared.hidden = !isPrepared;
  showExamples(isPrepared, (text) => conversation.send(text));
  later(sessions.refresh());
  await show(sessionOfAddress());
}

page.new.addEventListener("click", () => open(null));
// A link within the page changes the address, too.
addEventListener("popstate", () => sessionOfAddress() !== conversation.id && show(sessionOfAddress()));
composer.open(sessionOfAddress()); // what is written before the history is there belongs to this session
page.message.focus();
changes.follow();
await trying(start);
