// What the driver of the clients' tests cannot say: places that survive a reload, states, signals, stopping, back-pressure.
// The servers are of this process, and so each test decides what they send and when they break off.

import assert from "node:assert/strict";
import { getEventListeners, once } from "node:events";
import { createServer } from "node:http";
import { after, afterEach, suite, test } from "node:test";

import { NotStoppable, StreamFailed, StreamLost, StreamRefused, saved, tail } from "../../src/tailrace/js/tailrace.js";

const AT_ONCE = { base: 0 };
const HEAD = { "content-type": "text/event-stream", "tailrace-cursor": "s.e.0" };
const ADDRESS = { ...HEAD, "content-location": "/s", link: '</s/stop>; rel="stop"' };

const block = (number) => `id: s.e.${number}\ndata: ${number}\n\n`;
const done = (number) => `id: s.e.${number}.end\nevent: done\ndata: {}\n\n`;

const servers = [];

/** Serves each request with the next of these functions, the last one again and again. Returns the URL and the requests. */
async function serve(...answers) {
  const requests = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    requests.push({ method: request.method, url: request.url, headers: request.headers, body });
    response.setHeader("connection", "close");
    await (answers.length > 1 ? answers.shift() : answers[0])(response, request);
  });
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${server.address().port}/s`, requests };
}

/** Sends a body, and ends it cleanly or breaks it off. */
function say(text, { headers = ADDRESS, status = 200, breaks = false, stays = false } = {}) {
  return (response) => {
    response.writeHead(status, headers);
    if (breaks) response.write(text, () => response.destroy());
    else if (stays) response.write(text);
    else response.end(text);
  };
}

class Memory {
  kept = new Map();
  getItem = (name) => this.kept.get(name) ?? null;
  setItem = (name, text) => void this.kept.set(name, text);
  removeItem = (name) => void this.kept.delete(name);
}

async function take(stream, count) {
  const data = [];
  for await (const event of stream) {
    data.push(event.data);
    if (data.length === count) break;
  }
  return data;
}

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

suite("a saved place", () => {
  const options = (storage) => ({ json: { a: 1 }, saveAs: "answer", storage, retry: AT_ONCE });

  test("goes on after a reload, and is removed at the end", async () => {
    const storage = new Memory();
    const { url, requests } = await serve(say(block(1) + block(2), { stays: true }), say(block(2) + block(3) + done(3)));
    assert.deepEqual(await take(tail(url, options(storage)), 2), [1, 2]);
    const { cursor, address, stopAddress } = saved("answer", storage);
    // The page was left before the application came back for a third event.
    assert.deepEqual([cursor, address, stopAddress], ["s.e.1", url, `${url}/stop`]);
    const again = tail(url, options(storage));
    assert.deepEqual(await take(again), [2, 3]);
    assert.deepEqual(requests.map(({ method, url }) => `${method} ${url}`), ["POST /s", "GET /s?after=s.e.1"]);
    assert.equal(requests[1].headers["content-type"], undefined);
    assert.equal(again.outcome.state, "done");
    assert.equal(saved("answer", storage), null);
  });

  test("belongs to its request: another one begins anew", async () => {
    const storage = new Memory();
    const { url, requests } = await serve(say(block(1), { stays: true }), say(block(1) + done(1)));
    await take(tail(url, options(storage)), 1);
    await take(tail(url, { ...options(storage), json: { a: 2 } }));
    assert.deepEqual(requests.map(({ method, body }) => `${method} ${body}`), ['POST {"a":1}', 'POST {"a":2}']);
  });

  test("keeps the key of a request that got no answer", async () => {
    const storage = new Memory();
    const { url, requests } = await serve((response) => response.destroy(), say(block(1) + done(1)));
    const keyed = { ...options(storage), idempotencyKey: true };
    await assert.rejects(take(tail(url, { ...keyed, retry: { limit: 0 } })), StreamLost);
    assert.deepEqual(await take(tail(url, keyed)), [1]);
    assert.match(requests[0].headers["idempotency-key"], /^[0-9a-f-]{36}$/);
    assert.equal(requests[1].headers["idempotency-key"], requests[0].headers["idempotency-key"]);
  });

  test("begins anew if something else is kept under its name", async () => {
    const storage = new Memory();
    const { url, requests } = await serve(say(block(1), { stays: true }), say(done(0)));
    await take(tail(url, options(storage)), 1);
    const [name, text] = [...storage.kept][0];
    for (const wrong of [{ cursor: "a\nb" }, { address: 5 }, { key: {} }]) {
      storage.setItem(name, JSON.stringify({ ...JSON.parse(text), ...wrong }));
      assert.equal(saved("answer", storage), null);
      await tail(url, options(storage)).collect();
    }
    assert.deepEqual(requests.slice(1).map(({ method, url }) => `${method} ${url}`), Array(3).fill("POST /s"));
  });

  test("is kept for a feed, which has no address of its own", async () => {
    const storage = new Memory();
    const { url, requests } = await serve(say(block(1) + block(2), { headers: HEAD, stays: true }), say(block(2) + done(2)));
    const feed = { saveAs: "feed", storage };
    await take(tail(url, feed), 2);
    assert.deepEqual(await take(tail(url, feed)), [2]);
    assert.equal(requests[1].url, "/s?after=s.e.1");
  });

  test("is given up if the server refuses it, and costs nothing if the storage is full", async () => {
    const storage = new Memory();
    const { url } = await serve(say("", { status: 404, headers: {} }));
    await assert.rejects(take(tail(url, options(storage))), StreamRefused);
    assert.equal(saved("answer", storage), null);
    const full = { getItem: () => null, removeItem() {}, setItem: () => assert.fail("full") };
    await assert.rejects(take(tail(url, options(full))), StreamRefused);
  });
});

suite("states", () => {
  test("tell of each connection and wait", async () => {
    const { url } = await serve(say(block(1), { breaks: true }), say(block(2) + done(2)));
    const changes = [];
    const stream = tail(url, { retry: { base: 0.01 }, onState: (change) => changes.push(change) });
    assert.equal(stream.state, "idle");
    assert.deepEqual(await take(stream), [1, 2]);
    const states = changes.map(({ state, attempt }) => `${state} ${attempt}`);
    assert.deepEqual(states, ["connecting 0", "open 0", "waiting 1", "connecting 1", "open 1", "ended 0"]);
    assert.ok(changes[2].seconds <= 0.01);
    assert.match(changes[2].reason, /^the connection failed/);
    assert.equal(changes[2].kind, "broken");
    assert.equal(stream.state, "ended");
  });

  test("say why a stream failed", async () => {
    const { url } = await serve(say(`${block(1)}id: s.e.1.end\nevent: error\ndata: {"code":"c","message":"m","more":1}\n\n`));
    const changes = [];
    const stream = tail(url, { onState: (change) => changes.push(change) });
    await assert.rejects(stream.collect(), (/** @type {StreamFailed} */ error) => {
      assert.deepEqual([error.name, error.code, error.detail, error.members.more], ["StreamFailed", "c", "m", 1]);
      return true;
    });
    assert.deepEqual([changes.at(-1).state, changes.at(-1).reason], ["failed", "the stream failed: m (c)"]);
    assert.deepEqual(await stream.next(), { done: true, value: undefined });
  });

  test("a wait ends early when the device wakes, but not one that the server asked for", async () => {
    const farewell = 'id: s.e.1\nevent: farewell\nretry: 80\ndata: {"reason":"shutdown","retry":80}\n\n';
    const { url } = await serve(say(block(1), { breaks: true }), say(farewell), say(block(2) + done(2)));
    const waits = [];
    const wake = async () => {};
    const began = performance.now();
    const onState = ({ state, seconds }) => state === "waiting" && waits.push(seconds);
    assert.deepEqual(await take(tail(url, { retry: { base: 1000, cap: 1000 }, onState, wake })), [1, 2]);
    assert.equal(waits[1], 0.08);
    assert.ok(performance.now() - began >= 79);
  });
});

suite("a server that cannot reach its store", () => {
  const degraded = (id, value) => `id: s.e.${id}\nevent: degraded\ndata: {"degraded":${value}}\n\n`;

  test("says so once a change, and the stream goes on", async () => {
    const body = block(1) + degraded(1, true) + degraded(1, true) + block(2) + degraded(2, false) + block(3) + done(3);
    const { url, requests } = await serve(say(body));
    const told = [];
    const stream = tail(url, { onDegraded: (degraded) => told.push([degraded, stream.degraded]) });
    assert.deepEqual(await take(stream), [1, 2, 3]);
    assert.deepEqual(told, [[true, true], [false, false]]);
    assert.equal(stream.outcome.state, "done");
    assert.equal(requests.length, 1);
  });

  test("says it anew on each connection, and the place does not move", async () => {
    const body = `id: s.e.1~abcd\ndata: 1\n\n${degraded("1~abcd", true)}`;
    const { url, requests } = await serve(say(body, { breaks: true }), say(degraded("1~abcd", true) + done(1)));
    const told = [];
    const stream = tail(url, { onDegraded: (degraded) => told.push(degraded), retry: AT_ONCE });
    assert.deepEqual(await take(stream), [1]);
    assert.deepEqual(told, [true, false, true, false]);
    assert.match(requests[1].url, /after=s\.e\.1~abcd/);
  });
});

suite("leaving", () => {
  test("a break, a close and a signal end the connection", async () => {
    const gone = [];
    const { url } = await serve((response) => {
      gone.push(once(response, "close"));
      say(block(1), { stays: true })(response);
    });
    await take(tail(url), 1);
    const closed = tail(url);
    await closed.next();
    setTimeout(() => closed.close(), 5);
    assert.deepEqual(await closed.next(), { done: true, value: undefined });
    const abort = new AbortController();
    const aborted = tail(url, { signal: abort.signal });
    await aborted.next();
    setTimeout(() => abort.abort(new Error("enough")), 5);
    await assert.rejects(aborted.next(), { message: "enough" });
    assert.equal(gone.length, 3);
    await Promise.all(gone);
    for (const stream of [closed, aborted]) assert.equal(stream.state, "ended");
  });

  test("a signal is heeded while you deal with an event, too", async () => {
    const { url } = await serve(say(block(1) + block(2), { stays: true }));
    const abort = new AbortController();
    const got = [];
    const reading = (async () => {
      for await (const { data } of tail(url, { signal: abort.signal })) {
        got.push(data);
        abort.abort(new Error("enough"));
      }
    })();
    await assert.rejects(reading, { message: "enough" });
    assert.deepEqual(got, [1]);
  });

  test("a signal that outlives a stream does not hold it", async () => {
    const { url } = await serve(say(done(0)));
    const { signal } = new AbortController();
    const stream = tail(url, { signal });
    await stream.collect();
    assert.deepEqual(getEventListeners(signal, "abort"), []);
    assert.equal(stream.outcome.state, "done");
  });

  test("a callback may leave, and the stream remains ended", async () => {
    const { url, requests } = await serve(say(block(1) + done(1)));
    for (const moment of ["connecting", "onResponse", "open"]) {
      const states = [];
      const leave = (now) => now === moment && stream.close();
      const onState = ({ state }) => states.push(state) && leave(state);
      const stream = tail(url, { onState, onResponse: () => leave("onResponse") });
      assert.deepEqual(await stream.collect(), []);
      assert.deepEqual([stream.state, states.at(-1)], ["ended", "ended"], moment);
    }
    assert.equal(requests.length, 2); // none if it was left before
  });

  test("a signal that was aborted before begins nothing", async () => {
    const { url, requests } = await serve(say(done(0)));
    await assert.rejects(take(tail(url, { signal: AbortSignal.abort(new Error("no")) })), { message: "no" });
    assert.equal(requests.length, 0);
  });

  test("a wait ends with the stream", async () => {
    const { url } = await serve(say("", { status: 503, headers: { "retry-after": "50" } }));
    const stream = tail(url, { onState: ({ state }) => state === "waiting" && setTimeout(() => stream.close(), 5) });
    assert.deepEqual(await stream.collect(), []);
  });
});

suite("stopping", () => {
  test("returns the answer, and may give up the own connection first", async () => {
    const answer = { state: "cancelled" };
    const end = 'id: s.e.1.end\nevent: cancelled\ndata: {"code":"stopped"}\n\n';
    const { url, requests } = await serve(
      say(block(1), { stays: true }),
      (response) => response.end(JSON.stringify(answer)),
      say(end),
    );
    const stream = tail(url, { headers: { "x-key": "k" } });
    await stream.next();
    const rest = stream.next();
    assert.deepEqual(await stream.stop({ reconnect: true }), answer);
    assert.deepEqual(await rest, { done: true, value: undefined });
    assert.deepEqual(stream.outcome, { state: "cancelled", code: "stopped", message: null, data: null });
    const asked = requests.map(({ method, url, headers }) => `${method} ${url} ${headers["x-key"]}`);
    assert.deepEqual(asked, ["GET /s k", "POST /s/stop k", "GET /s?after=s.e.1 k"]);
  });

  test("waits for the address, and is repeated while the server cannot", async () => {
    let begin;
    const { url, requests } = await serve(
      (response) => (begin = () => say(block(1), { stays: true })(response)),
      say("", { status: 503, headers: {} }),
      say('{"state":"done"}', { headers: {} }),
    );
    const stream = tail(url, { retry: AT_ONCE });
    const first = stream.next();
    while (begin === undefined) await new Promise(setImmediate);
    const stopped = stream.stop();
    begin();
    assert.deepEqual(await stopped, { state: "done" });
    assert.equal((await first).value.data, 1);
    assert.equal(requests.length, 3);
    stream.close();
  });

  test("is impossible without an address", async () => {
    const { url } = await serve(say(block(1), { headers: HEAD, stays: true }));
    const stream = tail(url);
    await assert.rejects(stream.stop(), NotStoppable);
    await stream.next();
    await assert.rejects(stream.stop(), NotStoppable);
    stream.close();
  });
});

suite("requests", () => {
  test("have the headers of a function, each time anew, and any body", async () => {
    const { url, requests } = await serve(say(block(1), { breaks: true }), say(done(1)));
    let number = 0;
    const headers = async () => ({ Authorization: `Bearer ${++number}` });
    const body = new URLSearchParams({ message: "hi" });
    await take(tail(url, { body, headers, params: { a: [1, 2], b: null }, retry: AT_ONCE }));
    assert.deepEqual(
      requests.map(({ method, url, headers, body }) => `${method} ${url} ${headers.authorization} ${body}`),
      ["POST /s?a=1&a=2 Bearer 1 message=hi", "GET /s?after=s.e.1 Bearer 2 "],
    );
    assert.match(requests[0].headers["content-type"], /^application\/x-www-form-urlencoded/);
    assert.match(requests[0].headers.accept, /^text\/event-stream, /);
  });

  test("have the caller's Accept, however it is written", async () => {
    const { url, requests } = await serve(say(done(0)));
    await take(tail(url, { headers: { Accept: "text/event-stream" } }));
    await take(tail(url, { accept: "text/event-stream;q=1" }));
    assert.deepEqual(requests.map(({ headers }) => headers.accept), ["text/event-stream", "text/event-stream;q=1"]);
  });

  test("are refused before they are sent if they cannot be", () => {
    assert.throws(() => tail("nowhere"), /expected a URL, but got nowhere/);
    assert.throws(() => tail("http://a/", { json: 1, body: "" }), /expected json or body, but got both/);
    assert.throws(() => tail("http://a/", { after: "a\nb" }), /expected an id that a header can hold/);
    assert.throws(() => tail("ftp://a/"), /expected a URL with http or ws, but got ftp:/);
    assert.throws(() => tail("http://me:secret@a/"), /expected a URL without a name and a password/);
    assert.throws(() => tail("http://a/", { method: "GET", body: "a" }), /cannot have body/);
    assert.throws(() => tail("http://a/", { method: "G T" }), /not a valid HTTP method/);
    assert.throws(() => tail("http://a/", { json: () => 1 }), /expected JSON-able data, but got \(\) => 1/);
    assert.throws(() => tail("http://a/", { onReset: "raise" }), /expected "throw" or "restart" as onReset, but got raise/);
  });

  test("have the defaults for options that are undefined", async () => {
    const { url } = await serve(say(block(1), { breaks: true }), say(done(1)));
    const options = { timeouts: { head: undefined, idle: undefined }, retry: { limit: undefined, base: 0 } };
    assert.equal((await tail(url, options).collect()).length, 1);
  });
});

suite("the end of a failed stream", () => {
  test("is read from its document, if the body broke off before anything came", async () => {
    const { url, requests } = await serve(
      say(block(1), { breaks: true }),
      say("", { breaks: true }),
      say('{"data":[2],"outcome":{"state":"error","code":"c","message":"m"}}', { headers: {} }),
    );
    const got = [];
    const reading = (async () => {
      for await (const { data } of tail(url, { retry: AT_ONCE })) got.push(data);
    })();
    await assert.rejects(reading, { name: "StreamFailed", code: "c", detail: "m" });
    assert.deepEqual(got, [1, 2]);
    assert.equal(requests[2].url, "/s?after=s.e.1&stream=false");
    assert.equal(requests[2].headers.accept, "application/json");
  });

  test("is not taken from the document of one that goes on", async () => {
    const { url } = await serve(
      say("", { breaks: true }),
      say('{"data":[],"cursor":"s.e.0"}', { headers: {} }),
      say(block(1) + done(1)),
    );
    assert.deepEqual(await take(tail(url, { retry: AT_ONCE })), [1]);
  });

  test("may be told as a refusal with the events, as the chat does", async () => {
    const failed = { detail: "m", code: "c", data: [{ type: "chunk", text: "x", id: "s.e.1" }] };
    const { url } = await serve(
      say("", { breaks: true, headers: { ...ADDRESS, "content-type": "application/x-ndjson" } }),
      say(JSON.stringify(failed), { status: 502, headers: {} }),
    );
    const stream = tail(url, { retry: AT_ONCE });
    assert.equal((await stream.next()).value.data.text, "x");
    await assert.rejects(stream.next(), { name: "StreamFailed", code: "c" });
  });
});

test("onLine and onResponse show what came", async () => {
  const { url } = await serve(say(": ping\n" + block(1) + done(1)));
  const [lines, heads] = [[], []];
  const stream = tail(url, { onLine: (text, piece) => lines.push([text, piece]), onResponse: ({ status }) => heads.push(status) });
  await stream.collect();
  assert.deepEqual(lines.map(([text]) => text), [": ping\nid: s.e.1\ndata: 1", "id: s.e.1.end\nevent: done\ndata: {}"]);
  assert.deepEqual(Object.keys(lines[0][1]), ["number", "bytes", "total"]);
  assert.deepEqual(heads, [200]);
});

test("the cursor of a stream that was left is that of the last event that was received", async () => {
  const { url } = await serve(say(block(1) + block(2) + block(3), { stays: true }));
  const [left, closed] = [tail(url), tail(url)];
  assert.deepEqual(await take(left, 2), [1, 2]);
  await closed.next();
  closed.close();
  assert.deepEqual([left.cursor, closed.cursor], ["s.e.2", "s.e.1"]);
});

test("only the first of several resets in a row is followed at once", async () => {
  const waits = [];
  const onState = ({ state, seconds }) => state === "waiting" && waits.push(seconds);
  const reset = say('id: s.f.0\nevent: reset\ndata: {"reason":"epoch_changed"}\n\n');
  const { url } = await serve(reset, reset, say("id: s.f.0.end\nevent: done\ndata: {}\n\n"));
  const retry = { base: 0.01, cap: 0.01 };
  await tail(url, { after: "s.e.9", onReset: "restart", retry, onState }).collect();
  assert.equal(waits[0], 0);
  assert.ok(waits[1] > 0, String(waits));
});

test("text and collect read to the end", async () => {
  const { url } = await serve(say('id: s.e.1\ndata: "a"\n\nid: s.e.2\ndata: {"b":1}\n\n' + done(2)));
  assert.equal(await tail(url).text(), 'a{"b":1}\n');
  assert.deepEqual((await tail(url).collect()).map(({ data }) => data), ["a", { b: 1 }]);
});

test("open connects, and reads no event", async () => {
  const { url, requests } = await serve(say(block(1) + done(1)));
  const stream = await tail(url).open();
  assert.deepEqual([stream.state, stream.mediaType, stream.address, requests.length], ["open", "text/event-stream", url, 1]);
  assert.deepEqual(await take(stream), [1]);
});

test("a reader that does not ask leaves the rest in the socket", async () => {
  const piece = Buffer.from(block(1).replace("data: 1", `data: "${"x".repeat(1 << 16)}"`));
  let sent = 0;
  const { url } = await serve(async (response) => {
    response.writeHead(200, HEAD);
    while (!response.destroyed && sent < 1 << 28) {
      sent += piece.length;
      if (!response.write(piece)) await Promise.race([once(response, "drain"), once(response, "close")]);
    }
  });
  const stream = tail(url);
  await stream.next();
  // The server goes on only as long as buffers take more.
  for (let before = -1; before !== sent; ) {
    before = sent;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.ok(sent < 1 << 25, `${sent} bytes were taken`);
  stream.close();
});

test("an event beyond the bound is an error", async () => {
  const { url } = await serve(say(block(1) + `data: ${"x".repeat(100)}`, { stays: true }));
  const stream = tail(url, { maxLength: 50 });
  assert.equal((await stream.next()).value.data, 1);
  await assert.rejects(stream.next(), { name: "FrameTooLarge", limit: 50 });
});

after(() => {
  assert.deepEqual(process.getActiveResourcesInfo().filter((name) => name === "Timeout"), []);
});
