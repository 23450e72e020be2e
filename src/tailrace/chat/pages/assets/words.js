// Texts for the user.

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function seconds(value) {
  return `${value.toFixed(value < 9.95 ? 1 : 0)} s`;
}

export function bytes(number) {
  if (number < 1000) return `${number} B`;
  const kilo = number / 1000;
  return kilo < 1000 ? `${kilo.toFixed(kilo < 99.95 ? 1 : 0)} kB` : `${(kilo / 1000).toFixed(1)} MB`;
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

/** Describes a reply in a line: {state, text, chunks, seconds, context, dropped}. Unknown facts are left out. */
export function factsOf({ state, text, chunks, seconds: time, context, dropped }) {
  if (state === "generating" && !text) return "Waiting for the first words";
  const facts = [];
  if (chunks) facts.push(count(chunks, "chunk"));
  if (time && state !== "generating") facts.push(seconds(time));
  if (context) facts.push(`${count(context, "message")} of context`);
  if (dropped) facts.push(`${count(dropped, "older message")} left out`);
  return facts.join(" · ");
}

/** Says why a reply is not whole, and what was kept. Returns null if there is nothing to say. */
export function troubleOf({ state, error, text }) {
  const kept = text ? "Partial reply saved." : "Your message is saved.";
  if (state === "failed") return `${sentence(error ?? "The model failed")} ${kept}`;
  if (state === "interrupted") return `The server stopped before the reply was complete. ${kept}`;
  return null;
}

/** Describes the failure of a request. */
export function problem(error) {
  if (error instanceof TypeError) return "No response from the server.";
  return sentence(typeof error.detail === "string" ? error.detail : error.message);
}

export function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

export function time(text) {
  const date = new Date(text);
  const today = daysAgo(text) === 0;
  return date.toLocaleString(undefined, today ? { timeStyle: "short" } : { dateStyle: "medium" });
}

/** Names the time of a session, to group a list by it. */
export function ageOf(text) {
  const days = daysAgo(text);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return days < 7 ? "Last 7 days" : "Earlier";
}

function daysAgo(text) {
  const day = (date) => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86_400_000;
  return day(new Date()) - day(new Date(text));
}
