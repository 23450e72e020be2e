// The form of an operation: a field for each parameter, and one for the body.

import { element } from "./dom.js";
import { exampleOf, limitsOf, typeOf, withoutNull } from "./schema.js";
import { URL_OF_SERVER } from "./server.js";
import { said } from "./tables.js";
import { count } from "./words.js";

const PLACES = { path: "In the path", query: "In the query", header: "A header" };

/** The values to choose from, by the type of a schema without an `enum`. */
const CHOICES = { boolean: ["true", "false"] };

const KEYBOARDS = { integer: "numeric", number: "decimal" };

/** The fields of an operation. A value that is left empty is not sent. */
export class Fields {
  #operation;
  #parameters;
  #controls = new Map();
  #body = null;

  constructor(operation, schemas) {
    this.#operation = operation;
    this.#parameters = [...(operation.parameters ?? []), ...acceptOf(operation)];
    const fieldsOf = (parameters) => parameters.map((parameter) => this.#fieldOf(parameter));
    const others = fieldsOf(this.#parameters.filter(({ required }) => !required));
    this.elements = [
      ...fieldsOf(this.#parameters.filter(({ required }) => required)),
      ...(operation.requestBody ? [this.#bodyField(operation.requestBody, schemas)] : []),
      ...(others.length ? [more(others)] : []),
    ];
  }

  /** The request: {method, url, headers, body}. In `url`, `$NAME` stands for a missing path parameter. */
  get request() {
    const { method, path } = this.#operation;
    const filled = path.replaceAll(/\{(\w+)\}/g, (_, name) => segment(this.#valueOf(name)) || `$${name.toUpperCase()}`);
    const query = new URLSearchParams(this.#valuesIn("query"));
    const url = `${URL_OF_SERVER.href}${filled.slice(1)}${query.size ? `?${query}` : ""}`;
    const headers = Object.fromEntries(this.#valuesIn("header"));
    const body = this.#body?.value || null;
    if (body !== null) headers["Content-Type"] = Object.keys(this.#operation.requestBody.content)[0];
    return { method, url, headers, body };
  }

  /** Fills in the path parameters that the user has left to the page. */
  suggest(values) {
    for (const { name } of this.#parameters.filter(isInPath)) {
      const control = this.#controls.get(name);
      const mayChange = control.value === "" || control.value === control.dataset.suggested;
      if (name in values && mayChange) control.dataset.suggested = control.value = values[name];
    }
  }

  #valueOf(name) {
    return this.#controls.get(name).value;
  }

  #valuesIn(where) {
    const names = this.#parameters.filter((one) => one.in === where).map(({ name }) => name);
    return names.map((name) => [name, this.#valueOf(name)]).filter(([, value]) => value !== "");
  }

  #fieldOf({ name, in: where, required = false, schema: given, description }) {
    const schema = withoutNull(given);
    const id = `${this.#operation.operationId}-${name}`;
    const control = controlOf(schema, { id, "aria-describedby": `${id}-help`, ...(required ? { required: "" } : {}) });
    this.#controls.set(name, control);
    const type = schema.enum ? [] : [", ", ...typeOf(schema)];
    return field(name, control, [PLACES[where], ...type, ". ", ...said(description, limitsOf(schema))]);
  }

  #bodyField({ content }, schemas) {
    const [[type, { schema }]] = Object.entries(content);
    const text = JSON.stringify(exampleOf(schema, schemas), null, 2);
    const id = `${this.#operation.operationId}-body`;
    const rows = Math.min(12, text.split("\n").length);
    this.#body = element("textarea", { id, rows, spellcheck: "false", "aria-describedby": `${id}-help` }, [text]);
    return field("Body", this.#body, [`${type}: `, ...typeOf(schema), "."]);
  }
}

function isInPath(parameter) {
  return parameter.in === "path";
}

/** Returns the parameter that chooses between the media types of an answer, if there are several. */
function acceptOf({ responses }) {
  const types = Object.keys(responses["200"]?.content ?? {});
  if (types.length < 2) return [];
  const description = "The media type of the answer";
  return [{ name: "Accept", in: "header", required: true, schema: { enum: types }, description }];
}

/** Returns an element that hides the optional fields until someone wants them. */
function more(fields) {
  return element("details", {}, [element("summary", {}, [count(fields.length, "optional field")]), ...fields]);
}

function controlOf(schema, attributes) {
  const values = schema.enum ?? CHOICES[schema.type];
  if (values) return choice("required" in attributes ? values : ["", ...values], attributes);
  const placeholder = "required" in attributes ? "Taken from the next answer that has one" : "";
  return element("input", {
    ...attributes,
    autocomplete: "off",
    inputmode: KEYBOARDS[schema.type] ?? "text",
    placeholder,
    spellcheck: "false",
  });
}

function choice(values, attributes) {
  const option = (value) => element("option", { value }, [String(value) || "not sent"]);
  return element("select", attributes, values.map(option));
}

function field(name, control, help) {
  return element("div", { class: "field" }, [
    element("label", { for: control.id }, [name]),
    control,
    element("p", { id: `${control.id}-help`, class: "help" }, help),
  ]);
}

/** Returns a value as one segment of a path. The result also stands between double quotes in a shell. */
function segment(value) {
  return encodeURIComponent(value).replaceAll("!", "%21");
}
