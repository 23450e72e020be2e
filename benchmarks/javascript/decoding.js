// Decodes a stream of Server-Sent Events in pieces, several times, and prints the seconds of CPU of each time as JSON.
//
//     node decoding.js DECODER EVENTS PIECE TIMES FORM

import { createParser } from "../../tests/js/node_modules/eventsource-parser/dist/index.js";
import { SSEDecoder } from "../../src/tailrace/js/tailrace.js";

const [name, events, size, times, form] = process.argv.slice(2);

const FORMS = {
  plain: (number) => `data: {"n":${number},"text":"some text of a usual length"}\n\n`,
  ids: (number) => `id: hPzRl0xxxxxxxxxxxxxxxx.0.${number}\ndata: {"n":${number},"text":"some text of a usual length"}\n\n`,
  named: (number) => `id: ${number}\nevent: reading\ndata: {"n":${number},"text":"some text of a usual length"}\n\n`,
};

function* piecesOf(bytes, size) {
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size);
}

/** Returns a function from a piece to its events, as whoever reads a body piece by piece needs them. */
const DECODERS = {
  tailrace() {
    const decoder = new SSEDecoder();
    return (piece) => decoder.feed(piece);
  },
  "eventsource-parser"() {
    const utf8 = new TextDecoder();
    let events = [];
    const parser = createParser({ onEvent: ({ data, event, id }) => events.push({ data: JSON.parse(data), event, id }) });
    return (piece) => {
      events = [];
      parser.feed(utf8.decode(piece, { stream: true }));
      return events;
    };
  },
};

const stream = new TextEncoder().encode(Array.from({ length: Number(events) }, (_, number) => FORMS[form](number)).join(""));
const pieces = [...piecesOf(stream, Number(size))];
const seconds = [];
for (let time = 0; time < Number(times); time++) {
  const began = process.cpuUsage();
  const decode = DECODERS[name]();
  let count = 0;
  for (const piece of pieces) count += decode(piece).length;
  const { user, system } = process.cpuUsage(began);
  seconds.push((user + system) / 1e6);
  if (count !== Number(events)) throw new Error(`expected ${events} events, but got ${count}`);
}
console.log(JSON.stringify(seconds));
