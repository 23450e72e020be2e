// The shell command that is equal to a request.

import { element } from "./dom.js";
import { button } from "./tables.js";

const SHOWN = 2000; // milliseconds

/** Returns a command. `streams` lets curl print each line at once, `locked` adds the key as a variable of the shell. */
export function curlOf({ method, url, headers, body }, { streams, locked }) {
  const usual = body === null ? "GET" : "POST";
  return [
    streams ? "curl -sN" : "curl -s",
    ...(method === usual ? [] : [`-X ${method}`]),
    `"${url}"`,
    ...(locked ? ['-H "Authorization: Bearer $KEY"'] : []),
    ...Object.entries(headers).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`),
    // Not -d, which reads a file if the text begins with @.
    ...(body === null ? [] : [`--data-raw ${quoted(body)}`]),
  ].join(" ");
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A command that can be copied. */
export class Command {
  #code = element("code");
  #copy = button("Copy");

  constructor() {
    this.#copy.addEventListener("click", () => this.#copyAll());
    const attributes = { tabindex: "0", role: "group", "aria-label": "The same request for a shell" };
    this.element = element("div", { class: "command" }, [element("pre", attributes, [this.#code]), this.#copy]);
  }

  show(text) {
    this.#code.textContent = text;
  }

  async #copyAll() {
    this.#copy.textContent = (await write(this.#code.textContent)) ? "Copied" : "Selected";
    if (this.#copy.textContent === "Selected") getSelection().selectAllChildren(this.#code);
    setTimeout(() => (this.#copy.textContent = "Copy"), SHOWN);
  }
}

/** Returns false if the browser does not let the page write to the clipboard, as over plain HTTP. */
async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
