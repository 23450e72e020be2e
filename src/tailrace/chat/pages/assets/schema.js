// Describes OpenAPI schemas in words and links.

import { element } from "./dom.js";

const MOST_SEARCHED = 1000; // objects and lists of an answer

export function schemaId(name) {
  return `object-${name}`;
}

/** Returns the nodes that name the type of a schema. */
export function typeOf(schema) {
  if (schema.$ref) return [linkTo(schema.$ref.split("/").at(-1))];
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return joined(choices.map(typeOf), " or ");
  if (schema.allOf) return joined(schema.allOf.map(typeOf), " and ");
  if ("const" in schema) return [code(JSON.stringify(schema.const))];
  if (schema.enum) return joined(schema.enum.map((value) => [code(JSON.stringify(value))]), " or ");
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items ?? {})];
  if (schema.contentSchema) return ["JSON of ", ...typeOf(schema.contentSchema)];
  if (schema.properties) return membersOf(schema);
  return [schema.format ? `${schema.type} (${schema.format})` : (schema.type ?? "anything")];
}

/** Returns the nodes that describe the content of a media type: one document, or a sequence of items. */
export function contentOf({ schema, itemSchema }) {
  if (schema) return typeOf(schema);
  return itemSchema ? ["one after another: ", ...typeOf(itemSchema)] : ["text"];
}

/** Returns the limits of a schema besides its type, in words. */
export function limitsOf(schema) {
  const inner = [schema, ...(schema.anyOf ?? [])];
  const limits = { minimum: "at least", maximum: "at most", minLength: "length from", maxLength: "length to" };
  const said = inner.flatMap((one) =>
    Object.entries(limits).flatMap(([key, words]) => (key in one ? [`${words} ${one[key]}`] : [])),
  );
  if (schema.default !== undefined && schema.default !== null) said.push(`default ${JSON.stringify(schema.default)}`);
  return said.join(", ");
}

/** Removes null from a schema. It means that a parameter may be omitted, but null itself cannot be sent. */
export function withoutNull(schema) {
  const choices = (schema.anyOf ?? []).filter((one) => one.type !== "null");
  if (choices.length === 0) return schema;
  return choices.length === 1 ? { ...schema, ...choices[0], anyOf: undefined } : { ...schema, anyOf: choices };
}

/** Returns the example of a schema, which may be a reference to one of `schemas`. */
export function exampleOf({ $ref, examples }, schemas) {
  return (examples ?? schemas[$ref?.split("/").at(-1)]?.examples)?.[0] ?? {};
}

/** Returns the first value of each of these names in a JSON value, from the outside in. */
export function valuesOf(names, value) {
  const found = {};
  const left = [value];
  for (let index = 0; index < Math.min(left.length, MOST_SEARCHED); index++) {
    const members = Object.entries(left[index] ?? {});
    for (const [name, member] of members) {
      if (names.has(name) && typeof member === "string") found[name] ??= member;
      if (typeof member === "object") left.push(member);
    }
  }
  return found;
}

function membersOf({ properties }) {
  const members = Object.entries(properties).map(([name, schema]) => [code(name), ": ", ...typeOf(schema)]);
  return ["an object with ", ...joined(members, ", ")];
}

function linkTo(name) {
  return element("a", { href: `#${schemaId(name)}` }, [name]);
}

function code(text) {
  return element("code", {}, [text]);
}

function joined(parts, word) {
  return parts.flatMap((part, index) => (index ? [word, ...part] : part));
}
