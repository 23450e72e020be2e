// The page of the API, generated from the server's openapi.json.

import { element } from "./dom.js";
import { linkTo, Operation } from "./operation.js";
import { page } from "./page.js";
import { inline, prose } from "./prose.js";
import { limitsOf, schemaId, typeOf, valuesOf } from "./schema.js";
import { ask, hasKey, keepKey } from "./server.js";
import { code, said, table } from "./tables.js";
import { problem } from "./words.js";

/** Shows a form for each operation. An id in an answer fills in the fields with its name in all forms. */
function showOperations({ paths, components: { schemas } }) {
  const names = new Set();
  const forms = [];
  const take = (data) => {
    const values = valuesOf(names, data);
    if (Object.keys(values).length > 0) forms.forEach((form) => form.suggest(values));
  };
  for (const operation of operationsOf(paths)) {
    for (const { name, in: where } of operation.parameters ?? []) if (where === "path") names.add(name);
    page.contents.append(element("li", {}, [linkTo(operation)]));
    const form = new Operation(operation, { schemas, confirm, take });
    forms.push(form);
    page.operations.append(form.element);
  }
}

function operationsOf(paths) {
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, ...operation })),
  );
}

/** Asks whether to send a request that deletes something. */
function confirm(request) {
  page.request.textContent = request;
  page.asking.returnValue = "";
  page.asking.showModal();
  return new Promise((resolve) => {
    page.asking.addEventListener("close", () => resolve(page.asking.returnValue === "send"), { once: true });
  });
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

/** Lets the user save a key, where the server has keys. The chat page in the same tab has the same one. */
function showKey() {
  page.access.hidden = false;
  page.saved.textContent = hasKey() ? "This tab has a key." : "This tab has no key yet.";
  page.access.addEventListener("submit", (event) => {
    event.preventDefault();
    keepKey(page.key.value.trim());
    page.key.value = "";
    page.saved.textContent = "Key saved in this tab.";
  });
}

try {
  const api = await ask("GET", "openapi.json");
  page.version.textContent = api.info.version;
  page.about.append(...inline(api.info.description.trim()));
  if (api.components.securitySchemes) showKey();
  showOperations(api);
  Object.entries(api.components.schemas).forEach(showSchema);
  page.state.remove();
  // The target of the URL's fragment did not exist yet when the browser looked for it.
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
} catch (error) {
  page.state.textContent = `The API could not be read. ${problem(error)} Reload the page to try again.`;
}
