// Requests to the server that this page came from.

import { Refusal } from "./refusal.js";

export const URL_OF_SERVER = new URL("..", import.meta.url);

const KEY = "tailrace-api-key";

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

export function headers() {
  const key = sessionStorage.getItem(KEY);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** Returns the JSON of the server's answer. Throws Refusal, or TypeError if the server cannot be reached. */
export async function ask(method, path, query = {}, json = undefined) {
  const url = new URL(path, URL_OF_SERVER);
  url.search = new URLSearchParams(query);
  const body = json === undefined ? undefined : JSON.stringify(json);
  const type = body === undefined ? {} : { "Content-Type": "application/json" };
  const response = await fetch(url, { method, headers: { ...headers(), ...type }, body, cache: "no-store" });
  if (!response.ok) throw await Refusal.of(response);
  return response.json();
}
