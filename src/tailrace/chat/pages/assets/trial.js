// Sends a request, and follows its answer if it is a stream.

import { Refusal } from "./refusal.js";
import { headers as keyHeaders } from "./server.js";
import { seconds, sentence } from "./words.js";
import { StreamLost, tail } from "../js/tailrace.js";

const STREAMS = ["application/x-ndjson", "text/event-stream"];
const LONGEST = 4_000_000; // bytes of a document

/**
 * One request. `watch` gets the phase: `sending`, `following` a stream, the same of one that is `stoppable`, `left` if
 * it can be resumed, or `idle`. `take` gets the data of the answer.
 */
export class Trial {
  #request;
  #answer;
  #watch;
  #take;
  #abort = new AbortController(); // of the user
  #first = new AbortController(); // of the first response, which also ends with its stream
  #stream = null;
  #isStopped = false;
  #lines = 0;
  #bytes = 0; // of this response
  #earlier = 0; // bytes of earlier responses

  constructor(request, answer, { watch, take }) {
    const { Accept: accept, ...headers } = request.headers;
    this.#request = { ...request, accept, headers: () => ({ ...headers, ...keyHeaders() }) };
    this.#answer = answer;
    this.#watch = watch;
    this.#take = take;
  }

  /** Sends the request, and reads the answer to its end. */
  async run() {
    this.#answer.begin();
    this.#answer.say("Sent. Waiting for the response.", "busy");
    this.#watch("sending");
    await this.#guard(async () => {
      const response = await this.#send();
      if (response.ok && STREAMS.includes(typeOf(response))) return this.#follow(this.#open({ first: response }));
      return this.#show(response);
    });
  }

  /** Continues after the last event. */
  async resume() {
    const { cursor: after, address } = this.#stream;
    this.#abort = new AbortController();
    this.#answer.fact(`Resumed after ${after}.`);
    this.#watch("sending");
    await this.#guard(() => this.#follow(this.#open({ after, address })));
  }

  /** Leaves the answer. A stream goes on without this reader. */
  leave() {
    this.#abort.abort();
    this.#first.abort();
  }

  /** Asks the server to stop the stream for all its readers. */
  async stop() {
    this.#answer.say("Asked the server to stop.", "busy");
    this.#isStopped = true; // the stream may end before the answer is here
    try {
      const answer = await this.#stream.stop();
      this.#answer.fact(`${new URL(this.#stream.stopAddress).pathname} answered ${JSON.stringify(answer)}.`);
    } catch (error) {
      this.#isStopped = false;
      this.#answer.say(problem(error), "bad");
    }
  }

  /** Runs a part of the trial, which returns the next phase, and says so if it fails. */
  async #guard(part) {
    let phase = "idle";
    try {
      phase = await part();
    } catch (error) {
      const isCancelled = this.#abort.signal.aborted;
      this.#answer.say(isCancelled ? "Cancelled." : problem(error), isCancelled ? "left" : "bad");
      if (error instanceof StreamLost && error.cursor !== null) phase = "left";
    }
    this.#watch(phase);
  }

  #send() {
    const { method, url, body, accept, headers } = this.#request;
    const fields = headersOf({ ...headers(), ...(accept ? { accept } : {}) });
    return fetch(url, { method, headers: fields, body, cache: "no-store", signal: this.#first.signal });
  }

  async #show(response) {
    this.#answer.head(response);
    const { text, bytes, isWhole } = await documentOf(response);
    const value = parsed(text);
    const size = `${isWhole ? "" : "more than "}${bytes.toLocaleString("en")}`;
    this.#answer.body(value === undefined ? text : JSON.stringify(value, null, 2), size);
    this.#answer.say(...verdictOn(response, value));
    if (response.ok && value !== undefined) this.#take(value);
    return "idle";
  }

  // Streams

  #open({ first, after, address }) {
    const { signal } = this.#abort;
    return tail(this.#request.url, {
      ...this.#request,
      after,
      address,
      signal,
      onReset: "restart",
      fetch: first && startingWith(first, this.#first),
      onState: (change) => this.#note(change),
      onResponse: (response) => this.#begin(response),
      onLine: (text, piece) => this.#line(text, piece),
    });
  }

  async #follow(stream) {
    this.#stream = stream;
    try {
      for await (const { data } of stream) this.#take(data);
    } catch (error) {
      if (error !== this.#abort.signal.reason) throw error;
      const canResume = stream.cursor !== null;
      this.#answer.say(`Disconnected. The stream goes on${canResume ? ", and you can resume it" : ""}.`, "left");
      return canResume ? "left" : "idle";
    }
    this.#answer.say(this.#isStopped ? "Stopped." : "Complete.", "good");
    return "idle";
  }

  #begin(response) {
    this.#earlier += this.#bytes;
    this.#bytes = 0;
    this.#answer.head(response);
  }

  #line(text, { total }) {
    this.#lines += 1;
    this.#bytes = total;
    this.#answer.line(text, { lines: this.#lines, bytes: this.#earlier + total });
  }

  /** Says what happens to the connection. */
  #note({ state, seconds: wait, reason }) {
    if (state === "waiting") {
      this.#answer.fact(`${sentence(reason)} Next attempt in ${seconds(wait)}.`);
      this.#answer.say(`Connection lost. Next attempt in ${seconds(wait)}.`, "busy");
    }
    if (state === "open") {
      this.#answer.say("Receiving.", "busy");
      this.#watch(this.#stream.stopAddress === null ? "following" : "stoppable");
    }
  }
}

/** Returns a `fetch` whose first response is here already. */
function startingWith(response, abort) {
  let first = response;
  return (url, init) => {
    if (first === null) return fetch(url, init);
    const here = first;
    first = null;
    init.signal.addEventListener("abort", () => abort.abort());
    return Promise.resolve(here);
  };
}

function typeOf({ headers }) {
  return (headers.get("content-type") ?? "").split(";")[0];
}

/** Returns the text of a body, or the beginning of a very long one. */
async function documentOf({ body }) {
  const utf8 = new TextDecoder();
  const reader = body?.getReader();
  let [text, bytes] = ["", 0];
  while (reader && bytes < LONGEST) {
    const { done, value } = await reader.read();
    if (done) return { text: text + utf8.decode(), bytes, isWhole: true };
    text += utf8.decode(value, { stream: true });
    bytes += value.length;
  }
  await reader?.cancel();
  return { text, bytes, isWhole: !reader };
}

/** Returns the value of a text, or undefined if it is not JSON. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function verdictOn({ ok, status }, value) {
  if (ok) return ["Complete.", "good"];
  const hint = status === 401 ? " Save an API key at the top of this page, and send again." : "";
  return [`Refused: ${sentence(new Refusal(status, value ?? {}).message)}${hint}`, "bad"];
}

function headersOf(fields) {
  try {
    return new Headers(fields);
  } catch {
    throw new Error("a header can only have characters of ISO 8859-1");
  }
}

/** Describes why there is no answer, or not all of one. */
function problem(error) {
  return error instanceof TypeError ? "No response from the server." : sentence(error.message);
}
