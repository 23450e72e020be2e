// The decoders read the rows of a table that test_decoders.py writes: bytes, and what the decoders in Python make of them.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { suite, test } from "node:test";

import { DecodeError, LinesDecoder, SSEDecoder } from "../../src/tailrace/js/tailrace.js";

const DECODERS = {
  text: (maxLength) => new SSEDecoder({ maxLength, json: false }),
  events: (maxLength) => new SSEDecoder({ maxLength }),
  values: (maxLength) => new LinesDecoder({ maxLength, cursors: false }),
  lines: (maxLength) => new LinesDecoder({ maxLength }),
};

/** Returns numbers from 0 to 1, always the same ones for a seed (a linear congruential generator). */
function chance(seed) {
  let state = seed;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
}

/** The ways in which the bytes may arrive. */
function* waysOf(stream) {
  const bytes = [...stream].map((byte) => Uint8Array.of(byte));
  yield [stream];
  yield bytes;
  yield bytes.flatMap((byte) => [new Uint8Array(), byte]);
  const random = chance(stream.length);
  for (let time = 0; time < 8; time++) {
    const cuts = Array.from({ length: 6 }, () => Math.floor(random() * (stream.length + 1))).sort((a, b) => a - b);
    yield [0, ...cuts].map((start, index) => stream.subarray(start, cuts[index] ?? stream.length));
  }
}

/** Reads bytes that end after the last piece. Events before an error count, even if they came in one piece with it. */
function read(decoder, pieces) {
  const frames = [];
  try {
    for (const piece of pieces) frames.push(...decoder.feed(piece));
    frames.push(...decoder.close());
    return { frames, error: null };
  } catch (error) {
    assert.ok(error instanceof DecodeError, error.stack);
    return { frames: [...frames, ...error.before], error: error.name };
  }
}

function spelled({ data, event, id, retry }) {
  return data === undefined ? { event, id, retry } : { data, event, id, retry };
}

suite("however the bytes arrive", () => {
  for (const { title, decoder, stream, limit, frames, error } of JSON.parse(readFileSync(process.env.CASES, "utf8"))) {
    test(title, () => {
      for (const pieces of waysOf(Buffer.from(stream, "base64"))) {
        const got = read(DECODERS[decoder](limit), pieces);
        assert.deepEqual({ frames: got.frames.map(spelled), error: got.error }, { frames, error });
      }
    });
  }
});

test("an event comes as soon as its blank line begins", () => {
  const decoder = new SSEDecoder();
  const feed = (text) => decoder.feed(new TextEncoder().encode(text)).map(({ data }) => data);
  assert.deepEqual(feed("data: a\r\n\r"), ["a"]);
  assert.deepEqual(feed("\ndata: b\r\n\r\n"), ["b"]);
  assert.deepEqual(feed("data: c\n"), []);
  assert.deepEqual(feed("\n"), ["c"]);
});

test("an error names both sides", () => {
  assert.throws(() => new LinesDecoder().feed(Buffer.from("<html>\n")), /^DecodeError: expected a line of JSON, but got <html>/);
  assert.throws(() => new SSEDecoder({ maxLength: 3 }).feed(Buffer.from("data: 1")), {
    name: "FrameTooLarge",
    message: "expected a frame of at most 3 characters, but got at least 7",
  });
});

test("a piece of many lines, and a line of many pieces, take linear time", () => {
  const piece = Buffer.from("x".repeat(1024));
  for (const decoder of [new SSEDecoder(), new LinesDecoder({ cursors: false })]) {
    decoder.feed(Buffer.from(decoder instanceof SSEDecoder ? "data: " : '"'));
    for (let time = 0; time < 4096; time++) assert.deepEqual(decoder.feed(piece), []);
    const [{ data }] = decoder.feed(Buffer.from(decoder instanceof SSEDecoder ? "\n\n" : '"\n'));
    assert.equal(data.length, 4 << 20);
  }
});
