// The examples on an empty page. A click sends one.

import { element } from "./dom.js";
import { page } from "./page.js";

const PREPARED = [
  ["Tell me a long story", "Reload the page meanwhile: the reply goes on"],
  ["Show me some code", "With colours, and a button to copy it"],
  ["Show me a table", "It scrolls in its own box"],
  ["/fail", "The model fails halfway, and you can retry"],
];

const USUAL = [
  ["Explain what a log is", "In three short paragraphs"],
  ["Write a Python generator that reads a file backwards", "Code comes with colours"],
  ["Compare SSE, NDJSON and WebSockets", "As a table"],
  ["Plan a weekend of walks near a river", "As a list"],
];

/** Shows the examples for the demo model, or those for any other. */
export function showExamples(isPrepared, send) {
  const examples = isPrepared ? PREPARED : USUAL;
  page.examples.replaceChildren(...examples.map(([text, about]) => example(text, about, isPrepared, send)));
}

function example(text, about, isPrepared, send) {
  const button = element("button", { type: "button" }, [text, element("small", {}, [about])]);
  button.addEventListener("click", () => send(isPrepared ? text : `${text}. ${about}.`));
  return element("li", {}, [button]);
}
