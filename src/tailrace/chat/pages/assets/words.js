// Texts for the user.

import { Unreachable } from "./reply.js";
import { Refusal } from "./refusal.js";

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function seconds(value) {
  return `${value.toFixed(value < 9.95 ? 1 : 0)} s`;
}

const STATES = {
  generating: "Generating",
  complete: "Complete",
  stopped: "Stopped",
  failed: "Failed",
  interrupted: "Interrupted",
};

/** Returns the state of a reply in a word. */
export function stateOf({ state }) {
  return STATES[state];
}

/** Describes a reply in a line: {state, text, chunks, seconds, context, dropped, error}. `text` tells whether the reply
 * has any. Unknown facts are left out. */
export function factsOf({ state, chunks, seconds: time, context, dropped, error, text }) {
  const facts = [STATES[state]];
  if (chunks) facts.push(count(chunks, "chunk"));
  if (time && state !== "generating") facts.push(seconds(time));
  if (context) facts.push(`${count(context, "message")} of context`);
  if (dropped) facts.push(`the ${dropped} oldest did not fit`);
  const line = facts.join(" · ");
  if (state === "failed") return `${line}. ${sentence(error ?? "The model failed")} ${kept(text)}`;
  if (state === "interrupted") return `${line}. The server ended before the reply did. ${kept(text)}`;
  return line;
}

function kept(text) {
  return text ? "What came before is kept." : "Your message is kept.";
}

/** Describes the failure of a request. */
export function problem(error) {
  if (error instanceof Refusal) return sentence(error.message);
  if (error instanceof Unreachable) return sentence(`The server cannot be reached: ${error.message}`);
  if (error instanceof TypeError) return "The server cannot be reached.";
  return sentence(`The page failed: ${error.message}`);
}

export function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

export function time(text) {
  const date = new Date(text);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(undefined, today ? { timeStyle: "short" } : { dateStyle: "medium" });
}
