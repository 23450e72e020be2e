// The section of an operation: its description, a form to try it, and its responses.

import { Answer } from "./answer.js";
import { Command, curlOf } from "./curl.js";
import { element } from "./dom.js";
import { Fields } from "./fields.js";
import { prose } from "./prose.js";
import { contentOf } from "./schema.js";
import { button, code, said, table, title } from "./tables.js";
import { Trial } from "./trial.js";

/** The labels of the two buttons in each phase of a trial. Null hides the second one. */
const LABELS = {
  idle: ["Send", null],
  sending: ["Cancel", null],
  following: ["Disconnect", null],
  stoppable: ["Stop", "Disconnect"],
  left: ["Send", "Resume"],
};

export class Operation {
  #operation;
  #context;
  #fields;
  #command = new Command();
  #answer = new Answer();
  #trial = null;
  #main = button("Send", { class: "main" });
  #second = button("");
  #form;

  /**
   * @param context `confirm(question)` asks the user, `take(data)` gets the data of each answer, and `schemas` are the
   *   document's.
   */
  constructor(operation, context) {
    this.#operation = operation;
    this.#context = context;
    this.#fields = new Fields(operation, context.schemas);
    this.#form = element("form", { class: "try", "aria-label": `Try ${headingOf(operation)}` }, [
      ...this.#fields.elements,
      element("div", { class: "buttons" }, [this.#main, this.#second]),
      this.#command.element,
      this.#answer.element,
    ]);
    this.#listen();
    this.#enter("idle");
    this.#showCommand();
    this.element = this.#section();
  }

  /** Takes ids of other answers for the fields that are named like them. */
  suggest(values) {
    this.#fields.suggest(values);
    this.#showCommand();
  }

  #section() {
    const { operationId, summary, description, responses } = this.#operation;
    return element("section", { id: operationId }, [
      element("h3", {}, [linkTo(this.#operation)]),
      element("p", {}, [element("strong", {}, [summary])]),
      prose(description),
      title("Try it"),
      this.#form,
      title("Responses"),
      responseTable(responses),
    ]);
  }

  #listen() {
    this.#form.addEventListener("input", () => this.#showCommand());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#act(this.#main.textContent);
    });
    this.#form.addEventListener("keydown", (event) => {
      const sends = event.key === "Enter" && (event.ctrlKey || event.metaKey);
      if (sends && this.#main.type === "submit") this.#form.requestSubmit();
    });
    this.#main.addEventListener("click", (event) => {
      if (this.#main.type === "submit") return;
      event.preventDefault(); // the button may submit again before the browser acts on this click
      this.#act(this.#main.textContent);
    });
    this.#second.addEventListener("click", () => this.#act(this.#second.textContent));
  }

  #act(label) {
    const actions = {
      Send: () => this.#send(),
      Resume: () => this.#trial.resume(),
      Stop: () => this.#trial.stop(),
      Disconnect: () => this.#trial.leave(),
      Cancel: () => this.#trial.leave(),
    };
    return actions[label]();
  }

  async #send() {
    const request = this.#fields.request;
    const question = `${request.method} ${new URL(request.url).pathname}`;
    if (this.#operation["x-destructive"] && !(await this.#context.confirm(question))) return;
    const listeners = { watch: (phase) => this.#enter(phase), take: this.#context.take };
    this.#trial = new Trial(request, this.#answer, listeners);
    await this.#trial.run();
  }

  #enter(phase) {
    const [main, second] = LABELS[phase];
    this.#main.textContent = main;
    // While a trial runs, Enter in a field must not press its button.
    this.#main.type = main === "Send" ? "submit" : "button";
    if (second === null && document.activeElement === this.#second) this.#main.focus();
    this.#second.textContent = second ?? "";
    this.#second.hidden = second === null;
  }

  #showCommand() {
    const { responses, security } = this.#operation;
    const streams = Object.values(responses["200"]?.content ?? {}).some((one) => "itemSchema" in one);
    this.#command.show(curlOf(this.#fields.request, { streams, locked: security !== undefined }));
  }
}

/** Returns the link that leads to the section of an operation. */
export function linkTo({ method, path, operationId }) {
  const parts = [element("span", { class: "method" }, [method]), " ", code(path)];
  return element("a", { href: `#${operationId}` }, parts);
}

function headingOf({ method, path }) {
  return `${method} ${path}`;
}

function responseTable(responses) {
  const rows = Object.entries(responses).flatMap(([status, { description, content = {} }]) => {
    const types = Object.entries(content);
    if (!types.length) return [[status, "no body", said(description)]];
    return types.map(([type, one]) => [status, code(type), [...said(description), " Body: ", ...contentOf(one)]]);
  });
  return table(["Status", "Media type", "What"], rows);
}
