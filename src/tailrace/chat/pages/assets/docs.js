// The page of the API, generated from the server's openapi.json.

import { element } from "./dom.js";
import { inline, prose } from "./prose.js";
import { contentOf, limitsOf, schemaId, typeOf } from "./schema.js";
import { ask, URL_OF_SERVER } from "./server.js";
import { problem, sentence } from "./words.js";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((one) => [one.id, one]));
const NDJSON = "application/x-ndjson";

function operations(document) {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, ...operation })),
  );
}

function showOperation(operation) {
  const { method, path, operationId, summary, description, parameters = [], requestBody, responses } = operation;
  page.contents.append(element("li", {}, [element("a", { href: `#${operationId}` }, heading(method, path))]));
  const parts = [
    element("h3", {}, heading(method, path)),
    element("p", {}, [element("strong", {}, [summary])]),
    prose(description),
  ];
  if (parameters.length) parts.push(title("Parameters"), parameterTable(parameters));
  if (requestBody) parts.push(title("Body"), bodyTable(requestBody));
  parts.push(title("Responses"), responseTable(responses), title("Try it"), ...curls(operation));
  page.operations.append(element("section", { id: operationId }, parts));
}

function heading(method, path) {
  return [element("span", { class: "method" }, [method]), " ", element("code", {}, [path])];
}

function title(text) {
  return element("h4", {}, [text]);
}

function table(head, rows) {
  const row = (name, cells) => element("tr", {}, cells.map((cell) => element(name, {}, [cell].flat())));
  return element("div", { class: "table", tabindex: "0", role: "group", "aria-label": head.join(", ") }, [
    element("table", {}, [
      element("thead", {}, [row("th", head)]),
      element("tbody", {}, rows.map((cells) => row("td", cells))),
    ]),
  ]);
}

function parameterTable(parameters) {
  return table(
    ["Name", "In", "Type", "What for"],
    parameters.map(({ name, in: where, required, schema, description }) => [
      element("code", {}, [name]),
      required ? `${where}, required` : where,
      typeOf(withoutNull(schema)),
      said(description, limitsOf(schema)),
    ]),
  );
}

/** Removes null from a schema. It means that the parameter may be omitted, but null itself cannot be sent. */
function withoutNull(schema) {
  const choices = (schema.anyOf ?? []).filter((one) => one.type !== "null");
  return choices.length ? { ...schema, anyOf: choices } : schema;
}

function bodyTable({ content }) {
  const rows = Object.entries(content).map(([type, one]) => [code(type), typeOf(one.schema)]);
  return table(["Media type", "Object"], rows);
}

function responseTable(responses) {
  const rows = Object.entries(responses).flatMap(([status, { description, content = {} }]) => {
    const types = Object.entries(content);
    if (!types.length) return [[status, "no body", said(description)]];
    return types.map(([type, one]) => [status, code(type), [...said(description), " Body: ", ...contentOf(one)]]);
  });
  return table(["Status", "Media type", "What"], rows);
}

/** Returns sentences as nodes, without the empty ones. */
function said(...parts) {
  return inline(parts.filter(Boolean).map(sentence).join(" "));
}

function code(text) {
  return element("code", {}, [text]);
}

/** Returns shell commands. For a stream, there is one for each media type, and one to resume it. */
function curls({ method, path, requestBody, responses, parameters = [] }) {
  const address = new URL(path.slice(1), URL_OF_SERVER).href;
  const url = decodeURI(address).replaceAll(/\{(\w+)\}/g, (_, name) => `$${name.toUpperCase()}`);
  const types = Object.keys(responses["200"]?.content ?? {});
  const verb = method === "GET" || requestBody ? "" : ` -X ${method}`;
  const body = requestBody ? ` -H 'Content-Type: application/json' -d '${JSON.stringify(exampleOf(requestBody))}'` : "";
  if (!types.includes(NDJSON)) return [line(`curl -s${verb} "${url}"${body}`)];
  const others = types.filter((type) => type !== NDJSON);
  const resumed = method === "GET" && parameters.some(({ name }) => name === "after");
  return [
    line(`curl -sN${verb} "${url}"${body}`),
    ...others.map((type) => line(`curl -sN${verb} "${url}" -H 'Accept: ${type}'${body}`)),
    ...(resumed ? [line(`curl -sN "${url}?after=$ID"`)] : []),
  ];
}

function exampleOf({ content }) {
  const name = content["application/json"].schema.$ref.split("/").at(-1);
  return api.components.schemas[name].examples?.[0] ?? {};
}

function line(text) {
  return element("pre", { tabindex: "0", role: "group", "aria-label": "A line for a shell" }, [code(text)]);
}

function showSchema([name, schema]) {
  const parts = [element("h3", {}, [name]), prose(schema.description)];
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).map(([field, one]) => [
    code(field),
    typeOf(one),
    said(one.description, required.has(field) ? "" : "optional", limitsOf(one)),
  ]);
  parts.push(fields.length ? table(["Field", "Type", "What for"], fields) : element("p", {}, typeOf(schema)));
  page.schemas.append(element("section", { id: schemaId(name) }, parts));
}

let api;
try {
  api = await ask("GET", "openapi.json");
  page.version.textContent = api.info.version;
  page.about.append(...inline(api.info.description.trim()));
  operations(api).forEach(showOperation);
  Object.entries(api.components.schemas).forEach(showSchema);
  page.state.remove();
  // The target of the URL's fragment did not exist yet when the browser looked for it.
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
} catch (error) {
  page.state.textContent = `The API could not be read. ${problem(error)} Reload the page to try again.`;
}
