// Rooms of a real server (SERVER), also through a relay (RELAY) that breaks connections when it is told to.

import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { StreamLost, StreamRefused, TooManyUnsent, join } from "../../src/tailrace/js/tailrace.js";

const { SERVER, RELAY } = process.env;
const AT_ONCE = { base: 0.01, cap: 0.02, limit: 50 };

const order = (what, body) => fetch(`${SERVER}/relay/${what}`, { method: "POST", body });

/** Says messages in a room from elsewhere. */
async function say(room, ...messages) {
  const body = messages.map((message) => `${JSON.stringify(message)}\n`).join("");
  const response = await fetch(`${SERVER}/rooms/${room}`, {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body,
  });
  assert.equal(response.status, 202);
}

/** Reads so many messages, without leaving. */
async function read(room, count) {
  const got = [];
  while (got.length < count) {
    const { value } = await room.next();
    if (value.event === "message") got.push(value.data.message);
  }
  return got;
}

test("a room is read and written", async () => {
  const room = join(`${SERVER}/rooms/one#part`, { params: { name: "ann" } });
  const sent = room.send({ a: 1 });
  const { value: joined } = await room.next();
  assert.deepEqual([joined.event, joined.data.member], ["join", "ann"]);
  await sent;
  await room.send("42");
  assert.deepEqual(await read(room, 2), [{ a: 1 }, "42"]);
  assert.equal(room.state, "open");
  room.close();
  assert.deepEqual(await room.next(), { done: true, value: undefined });
  await assert.rejects(room.send(1), StreamLost);
});

test("cut again and again, each event comes once and in order", async () => {
  const states = [];
  await order("cut-after", Array.from({ length: 40 }, (_, number) => 200 + 97 * number).join(" "));
  const room = join(`${RELAY}/rooms/cut`, { retry: AT_ONCE, onState: ({ state }) => states.push(state) });
  const numbers = Array.from({ length: 200 }, (_, number) => number);
  const saying = (async () => {
    for (const number of numbers) await say("cut", number);
  })();
  assert.deepEqual(await read(room, numbers.length), numbers);
  await saying;
  assert.ok(states.filter((state) => state === "open").length > 3, String(states));
  room.close();
});

test("what is sent without a connection waits for the next one, up to a bound", async () => {
  const room = join(`${RELAY}/rooms/late`, { retry: AT_ONCE, maxQueued: 2 });
  await room.open();
  await order("refuse");
  await order("cut");
  const reading = read(room, 2);
  while (room.state !== "waiting") await new Promise((resolve) => setTimeout(resolve, 1));
  const sent = [room.send(1), room.send(2)];
  await assert.rejects(room.send(3), TooManyUnsent);
  await order("admit");
  assert.deepEqual(await reading, [1, 2]);
  await Promise.all(sent);
  room.close();
});

test("what waits to be sent is bounded in characters, too, and is sent whatever it is", async () => {
  const room = join(`${SERVER}/rooms/heavy`);
  const text = "€".repeat(1 << 20); // 3 MiB, which the room refuses
  const sent = Array.from({ length: 7 }, () => room.send(text));
  await assert.rejects(room.send(text), /at most 8388608 characters to wait to be sent, but got 8388624/);
  let refused = 0;
  while (refused < 7) if ((await room.next()).value.event === "refused") refused++;
  await Promise.all(sent);
  room.close();
});

test("what is sent on a connection that only gives a reset is sent on the next one", async () => {
  await say("anew", "kept");
  const room = join(`${SERVER}/rooms/anew`, { after: "anew.Qm9vdC.4", retry: AT_ONCE });
  const sent = room.send("early");
  const { value } = await room.next();
  assert.equal(value.event, "reset");
  await sent;
  assert.deepEqual(await read(room, 2), ["kept", "early"]);
  await room.send("late");
  assert.deepEqual(await read(room, 1), ["late"]);
  room.close();
});

test("a slow reader comes back for the rest", async () => {
  const states = [];
  const room = join(`${SERVER}/rooms/slow`, { maxQueued: 10, retry: AT_ONCE, onState: ({ state }) => states.push(state) });
  const other = join(`${SERVER}/rooms/slow`);
  await Promise.all([room.open(), other.open()]);
  const numbers = Array.from({ length: 100 }, (_, number) => number);
  await say("slow", ...numbers);
  assert.deepEqual(await read(other, 100), numbers);
  other.close();
  assert.deepEqual(await read(room, 100), numbers);
  assert.ok(states.filter((state) => state === "connecting").length > 1);
  assert.ok(!states.includes("waiting"));
  room.close();
});

suite("ends", () => {
  test("a refusal says why", async () => {
    const room = join(`${SERVER}/rooms/one`, { headers: { "x-key": "wrong" } });
    await assert.rejects(room.next(), (error) => error instanceof StreamRefused && error.status === 401);
    assert.equal(room.state, "failed");
  });

  test("a room that cannot be reached is given up, and so is what was to be sent", async () => {
    const room = join("http://127.0.0.1:1/rooms/x", { retry: { base: 0, limit: 2 } });
    const sent = room.send(1);
    await assert.rejects(room.next(), (error) => error instanceof StreamLost && error.attempts === 3);
    await assert.rejects(sent, StreamLost);
  });

  test("a message that is refused is an event", async () => {
    const room = join(`${SERVER}/rooms/refused`);
    const sending = room.send("x".repeat(100_000));
    const { value } = await room.next();
    await sending;
    assert.deepEqual([value.event, value.data.code, value.id], ["refused", "message_too_large", null]);
    room.close();
  });

  test("a cursor that cannot be continued is an event `reset`, or an error", async () => {
    await say("reset", "kept");
    const room = join(`${SERVER}/rooms/reset`, { after: "reset.Qm9vdC.4", retry: AT_ONCE });
    const { value } = await room.next();
    assert.deepEqual([value.event, value.data.reason], ["reset", "epoch_changed"]);
    await say("reset", "after");
    assert.equal((await read(room, 1)).length, 1);
    room.close();
    const strict = join(`${SERVER}/rooms/reset`, { after: "reset.Qm9vdC.4", onReset: "throw" });
    await assert.rejects(strict.next(), { name: "StreamReset", reason: "epoch_changed" });
  });

  test("a signal ends the reading", async () => {
    const abort = new AbortController();
    const room = join(`${SERVER}/rooms/signal`, { signal: abort.signal });
    await room.open();
    setTimeout(() => abort.abort(new Error("enough")), 5);
    await assert.rejects(room.next(), { message: "enough" });
    assert.equal(room.state, "ended");
  });
});
