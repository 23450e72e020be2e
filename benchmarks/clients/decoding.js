// From bytes to events: `node decoding.js PEER EVENTS` prints the microseconds of CPU for an event, as JSON.

import { createParser } from "../../tests/js/node_modules/eventsource-parser/dist/index.js";
import { SSEDecoder } from "../../src/tailrace/js/tailrace.js";

const REPEAT = 15; // the compiler needs some rounds
const PIECE = 64 * 1024;

const reading = (number) => `{"id":${number},"name":"sensor","value":3.25}`;

/** The shapes of an event, and whether each comes in a piece of its own. */
const SHAPES = {
  ids_us: [(number) => `id: k3J9xQ2mLp0.1.${number}\ndata: ${reading(number)}\n\n`, false],
  live_us: [(number) => `id: k3J9xQ2mLp0.1.${number}\ndata: ${reading(number)}\n\n`, true],
  bare_us: [(number) => `data: ${reading(number)}\n\n`, false],
  named_us: [(number) => `event: reading\ndata: ${reading(number)}\n\n`, false],
};

/** Functions from a piece to its events with their JSON, as a client that reads a body piece by piece needs them. */
const PEERS = {
  "tailrace-js-decoder"() {
    const decoder = new SSEDecoder();
    return (piece) => decoder.feed(piece);
  },
  "eventsource-parser"() {
    const utf8 = new TextDecoder();
    let events = [];
    const onEvent = ({ data, event, id }) => events.push({ data: JSON.parse(data), event, id });
    const parser = createParser({ onEvent });
    return (piece) => {
      events = [];
      parser.feed(utf8.decode(piece, { stream: true }));
      return events;
    };
  },
};

function piecesOf(events, isLive) {
  const encoder = new TextEncoder();
  if (isLive) return events.map((event) => encoder.encode(event));
  const stream = encoder.encode(events.join(""));
  return Array.from({ length: Math.ceil(stream.length / PIECE) }, (_, number) =>
    stream.subarray(number * PIECE, (number + 1) * PIECE),
  );
}

/** Decodes the pieces, and returns the seconds of CPU. A fast decoder of wrong events must not win. */
function decodeAll(peer, pieces, count) {
  const began = process.cpuUsage();
  const decode = PEERS[peer]();
  let [events, last] = [0, null];
  for (const piece of pieces) {
    const got = decode(piece);
    events += got.length;
    last = got.at(-1) ?? last;
  }
  const { user } = process.cpuUsage(began);
  if (events !== count || last.data.id !== count - 1) {
    throw new Error(`expected ${count} events, but got ${events}, the last one ${JSON.stringify(last)}`);
  }
  return user / 1e6;
}

const [peer, events] = process.argv.slice(2);
const count = Number(events);
const sample = {};
for (const [metric, [shape, isLive]] of Object.entries(SHAPES)) {
  const pieces = piecesOf(Array.from({ length: count }, (_, number) => shape(number)), isLive);
  const seconds = Array.from({ length: REPEAT }, () => decodeAll(peer, pieces, count));
  sample[metric] = (Math.min(...seconds) / count) * 1e6;
}
console.log(JSON.stringify(sample));
