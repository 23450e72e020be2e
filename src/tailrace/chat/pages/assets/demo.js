// The chat page: its actions, and the states that it shows.

import { Messages } from "./messages.js";
import { readReply, Unreachable } from "./reply.js";
import { Refusal } from "./refusal.js";
import { ask, headers, URL_OF_SERVER } from "./server.js";
import { addressOf, Sessions, titleOf } from "./sessions.js";
import { announce, askForKey, notice, page, say } from "./status.js";
import { count, factsOf, problem, seconds, stateOf } from "./words.js";

const TURNS = 40; // of a session's history at a time

const messages = new Messages(page.messages, page.log, page.newest);
const sessions = new Sessions(page, { open, remove, trying });

let current = null; // the id of the session that is shown; null before its first message
let model = "model";
let earlier = null; // the token of what was said before the first message that is shown
let running = null; // the reply that is read: {leave, reply, facts, streamId, stopping, ended}
let unsent = null; // a message that may have been sent, {message, sessionId, key}
let loaded = false; // whether the messages of the session are on the page
let hasty = false; // whether a message was submitted before they were
let shown = 0; // counts what is shown, so that answers that come too late are not

// Failures

function showControls() {
  page.send.hidden = running !== null;
  page.stop.hidden = running === null;
  page.stop.disabled = running?.stopping ?? false;
  page.stop.textContent = running?.stopping ? "Stopping" : "Stop";
  page.empty.hidden = !(loaded && messages.empty);
}

/** Calls a function, and shows its error if it fails. */
async function trying(what) {
  try {
    await what();
  } catch (error) {
    failed(error, () => trying(what));
  }
}

function failed(error, again) {
  if (error instanceof Refusal && error.status === 401) return askForKey(again);
  say(error instanceof Refusal ? "Failed" : "Not connected", "bad");
  announce(page.state.textContent);
  if (!(error instanceof Refusal || error instanceof TypeError)) console.error(error);
  return notice(`${problem(error)} Nothing was lost.`, { label: "Try again", act: again });
}

// Sessions

/** Shows a session as the server has it, and continues its reply in progress. */
async function load(sessionId) {
  const turn = ++shown;
  if (running?.waiting && !running.streamId) page.message.value ||= unsent.message; // it may not have been sent
  running?.leave.abort();
  running = null;
  loaded = false;
  current = sessionId;
  earlier = null;
  page.earlier.hidden = true;
  messages.clear();
  sessions.mark(sessionId);
  document.title = "tailrace chat";
  showControls();
  say("Connecting", "busy");
  const [found] = await Promise.all([
    sessionId === null ? null : turnsOf(sessionId).catch(unlessGone),
    sessions.refresh(),
  ]);
  if (turn !== shown) return;
  if (found === undefined) {
    notice("This session is not there: it was deleted, or belongs to another key. Your next message begins a new one.");
    return open(null, { replace: true });
  }
  loaded = true;
  say("Connected");
  if (found !== null) show(found);
  showControls();
  if (hasty) submit();
}

function turnsOf(sessionId, place = {}) {
  return ask("GET", `sessions/${encodeURIComponent(sessionId)}`, { limit: TURNS, ...place });
}

function unlessGone(error) {
  if (error instanceof Refusal && (error.status === 404 || error.status === 422)) return undefined;
  throw error;
}

function show(session) {
  document.title = `${titleOf(session)} – tailrace chat`;
  const last = session.messages.at(-1);
  const streamId = last?.state === "generating" ? last.stream_id : session.stream_id;
  const settled = session.messages.filter((one) => one.role === "user" || one.stream_id !== streamId);
  settled.forEach(addMessage);
  earlier = session.earlier;
  page.earlier.hidden = earlier === null;
  messages.toEnd();
  if (streamId) follow({ streamId }, messages.reply(last?.model ?? model, "", { state: "generating" }));
}

function addMessage(one, index, all) {
  if (one.role === "user") return messages.said(one.text);
  const { state, error, total_chunks: chunks, processing_time: time } = one;
  const facts = { state, error, chunks, seconds: time, text: one.text !== "" };
  const canAsk = index === all.length - 1 && (one.state === "failed" || one.state === "interrupted");
  return messages.reply(one.model, one.text, facts, canAsk ? () => send(all[index - 1].text) : null);
}

async function showEarlier() {
  const [turn, sessionId] = [shown, current];
  const session = await turnsOf(sessionId, { before: earlier });
  if (turn !== shown) return;
  messages.before(() => session.messages.forEach((one) => addMessage(one, -1, [])));
  earlier = session.earlier;
  page.earlier.hidden = earlier === null;
  if (page.earlier.hidden) page.log.focus();
}

/** Opens a session, or a new one. */
function open(sessionId, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", addressOf(sessionId));
  toggleSide(false);
  page.message.focus();
  return trying(() => load(sessionId));
}

async function remove(session) {
  page.doomed.textContent = `Delete “${titleOf(session)}”?`;
  page.asking.returnValue = "";
  page.asking.showModal();
  await new Promise((resolve) => page.asking.addEventListener("close", resolve, { once: true }));
  if (page.asking.returnValue !== "delete") return;
  await trying(async () => {
    const mine = session.session_id === current;
    if (mine) running?.leave.abort();
    await ask("DELETE", `sessions/${session.session_id}`).catch(unlessGone);
    announce("Deleted");
    if (mine) await open(null, { replace: true });
    else await sessions.refresh();
    page.new.focus();
  });
}

// Replies

/** Sends a message. If it repeats a failed message to the same session, it has the same key, so it is answered once. */
function send(message) {
  if (running) return;
  page.notice.hidden = true;
  const same = unsent?.message === message && unsent.sessionId === current;
  const what = same ? unsent : { message, sessionId: current, key: newKey() };
  const asked = messages.said(message);
  const reply = messages.reply(model, "", { state: "generating" });
  messages.toEnd();
  unsent = what;
  follow(what, reply, asked);
}

/** Returns 128 random bits. randomUUID exists on secure origins only. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function follow(what, reply, asked = null) {
  const turn = shown;
  const run = { leave: new AbortController(), reply, facts: { state: "generating" }, streamId: what.streamId };
  running = run;
  showControls();
  say(what.streamId ? "Connecting to the reply" : "Sending", "busy");
  announce("Generating");
  try {
    const options = {
      url: URL_OF_SERVER,
      headers,
      signal: run.leave.signal,
      onConnection: (connection) => connected(run, connection),
      wake: (signal) => new Promise((resolve) => addEventListener("online", resolve, { signal })),
    };
    for await (const object of readReply(what, options)) take[object.type]?.(run, object);
    if (!run.ended) throw new Error("the reply had no end");
  } catch (error) {
    if (turn === shown) broken(run, error, what, asked);
  } finally {
    if (running === run) {
      running = null;
      showControls();
    }
  }
}

/** The handlers for the objects of a reply's stream, by type. */
const take = {
  session_info(run, { session_id: sessionId, stream_id: streamId, model: name }) {
    run.streamId = streamId;
    run.reply.name(name);
    unsent = null;
    if (current !== sessionId) {
      current = sessionId;
      history.replaceState(null, "", addressOf(sessionId));
    }
    sessions.refresh().catch(() => {}); // the list is late then, and the stream says what is wrong
    sessions.mark(sessionId);
    tell(run, {});
    if (run.stopping) askToStop(run);
  },
  status(run, { context_messages: context, dropped_messages: dropped }) {
    tell(run, { context, dropped });
  },
  chunk(run, { text, chunk_number: chunks }) {
    renew(run);
    run.reply.append(text);
    tell(run, run.again ? { text: true } : { chunks, text: true });
  },
  reset(run) {
    run.again = true; // the text comes again, but not in the pieces that it was written in
    run.stale = true;
    tell(run, { chunks: 0 });
  },
  complete(run, { state, total_chunks: chunks, processing_time: time }) {
    end(run, { state, chunks, seconds: time });
  },
  error(run, { code, message }) {
    const state = code === "interrupted" ? "interrupted" : "failed";
    end(run, { state, error: message });
  },
};

/** Clears the text from before a reset. It stays visible until new text or the end arrives. */
function renew(run) {
  if (!run.stale) return;
  run.stale = false;
  run.facts.text = false;
  run.reply.clear();
}

function tell(run, facts) {
  Object.assign(run.facts, facts);
  run.reply.tell(run.facts);
  const { chunks, text } = run.facts;
  const words = chunks ? ` · ${count(chunks, "chunk")}` : text ? "" : " · waiting for the first words";
  say(`${stateOf(run.facts)}${words}`, "busy");
}

function end(run, facts) {
  run.ended = true;
  renew(run);
  Object.assign(run.facts, facts);
  const bad = facts.state === "failed" || facts.state === "interrupted";
  const message = run.reply.item.previousElementSibling?.querySelector(".said")?.textContent;
  run.reply.tell(run.facts, bad && message ? () => send(message) : null);
  say(stateOf(run.facts), bad ? "bad" : "good");
  announce(bad ? factsOf(run.facts) : stateOf(run.facts));
  sessions.refresh().catch(() => {}); // the same
}

function connected(run, { state, seconds: wait, reason }) {
  const what = run.streamId ? "Reconnecting" : "Sending again";
  if (state === "waiting") {
    const words = run.streamId ? "The reply goes on" : "Your message is kept";
    run.waiting = true;
    say(`${what} in ${seconds(wait)}: ${reason}. ${words}.`, "bad");
    announce(what);
  } else if (run.waiting && state === "connecting") {
    say(what, "bad");
  } else if (run.waiting) {
    run.waiting = false;
    announce("Connected again");
    tell(run, {});
    if (run.stopping) askToStop(run);
  }
}

/** Handles a reply that cannot be read, or a message that was refused. The message goes back to its field. */
function broken(run, error, what, asked) {
  if (run.streamId) {
    if (run.leave.signal.aborted) return;
    failed(error, () => trying(() => load(current)));
    return;
  }
  run.reply.remove();
  asked?.remove();
  page.message.value ||= what.message;
  page.message.focus();
  showControls();
  const refused = error instanceof Refusal;
  if (refused) unsent = null;
  if (refused && error.status === 401) return askForKey(() => submit());
  say(refused ? "Not sent" : "Not known whether it was sent", "bad");
  announce(page.state.textContent);
  if (refused && error.code === "session_busy") {
    notice("This session is still answering another message. Yours is kept below: send it when that reply has ended.");
    return trying(() => load(current));
  }
  if (refused && error.status === 404) {
    notice("This session was deleted. Your message is kept below: sending it begins a new session.");
    return open(null, { replace: true });
  }
  if (refused) return notice(`${problem(error)} Your message is kept below.`);
  const cause = error instanceof Unreachable ? problem(error) : "You stopped before the server had answered.";
  const words = `${cause} Your message is kept below; sending it again does not ask twice.`;
  return notice(words, { label: "Send again", act: submit });
}

/** Stops the model. The end of the reply then arrives in its stream. */
function stop() {
  const run = running;
  if (!run || run.stopping) return;
  if (!run.streamId && run.waiting) return run.leave.abort();
  run.stopping = true;
  showControls();
  if (run.streamId) askToStop(run);
}

async function askToStop(run) {
  try {
    await ask("POST", `chat/stream/${run.streamId}/stop`);
  } catch (error) {
    if (!(error instanceof Refusal)) return; // asked again when the connection is back
    run.stopping = false;
    showControls();
    notice(`The reply was not stopped. ${problem(error)}`);
  }
}

// The user's actions

function submit() {
  const message = page.message.value;
  hasty = !loaded && message.trim() !== "";
  if (hasty || message.trim() === "") return;
  if (running) return announce("Wait until the reply has ended, or stop it");
  page.message.value = "";
  page.message.focus();
  send(message);
}

function toggleSide(visible) {
  page.side.classList.toggle("open", visible);
  page.menu.setAttribute("aria-expanded", String(visible));
}

page.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
page.message.addEventListener("keydown", (event) => {
  // While the user composes characters, Enter selects one of them. Safari reports this only by the key code 229.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
page.stop.addEventListener("click", () => {
  stop();
  page.message.focus();
});
page.new.addEventListener("click", () => open(null));
page.menu.addEventListener("click", () => toggleSide(!page.side.classList.contains("open")));
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || page.asking.open || page.menu.getAttribute("aria-expanded") !== "true") return;
  toggleSide(false);
  page.menu.focus();
});
page.earlier.addEventListener("click", () => trying(showEarlier));
addEventListener("popstate", () => trying(() => load(sessionOfAddress())));

function sessionOfAddress() {
  return new URLSearchParams(location.search).get("session");
}

async function start() {
  const server = await ask("GET", "");
  const prepared = server.model === "demo";
  model = server.model;
  page.model.textContent = prepared ? `Model: ${model} (prepared text, not an AI)` : `Model: ${model}`;
  page.prepared.hidden = !prepared;
  await load(sessionOfAddress());
}

page.message.focus();
await trying(start);
