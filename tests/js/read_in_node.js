// Reads streams as the lines of its input say, one after another, and writes what came of each as a line.

import { createInterface } from "node:readline";

import * as tailrace from "../../src/tailrace/js/tailrace.js";
import { reader } from "./reading.js";

const read = reader(tailrace);
for await (const line of createInterface({ input: process.stdin })) {
  const { number, ...request } = JSON.parse(line);
  // Several may be read at the same time.
  read(request).then((got) => process.stdout.write(`${JSON.stringify({ number, ...got })}\n`));
}
