// What the rover has said recently, and what that means. Nothing is ever made up between two readings.

const MOST = 4_000; // readings that are kept
const LATE = 16; // readings that the usual time between two is taken from
const TREND = 40; // readings that a trend is taken from
const ENOUGH = 10; // readings without a gap before there is a trend
const TOGETHER = 100; // milliseconds; what arrives within them comes from the server's history

/**
 * The rover's clock may run faster than the user's. `every` is the usual time between two readings by the rover's
 * clock, and `beat` is the same by the user's. All times are in milliseconds.
 */
export class Readings {
  list = [];
  every = 2_000;
  beat = 2_000;
  #arrived = 0;
  #beats = [2_000, 2_000, 2_000]; // until there are own ones

  get last() {
    return this.list.at(-1);
  }

  get empty() {
    return this.list.length === 0;
  }

  /** The time since the newest reading arrived, by the user's clock. */
  get silence() {
    return performance.now() - this.#arrived;
  }

  /** Whether readings fail to come although it is time for them. */
  get late() {
    return this.silence > this.beat * 5;
  }

  /** How much faster than the user's the rover's clock runs. */
  get speed() {
    return this.every / this.beat;
  }

  /** The longest time between two readings that belong together. */
  get bridge() {
    return this.every * 2.5;
  }

  /** The newest moment of the plots. It goes on without readings, so that their absence shows. */
  get now() {
    return this.empty ? Date.now() : this.last.at + Math.max(0, this.silence - this.beat * 1.5) * this.speed;
  }

  add(reading) {
    const at = Date.parse(reading.time);
    if (!Number.isFinite(at) || (this.last && at <= this.last.at)) return;
    if (!this.empty && this.silence > TOGETHER) this.#beats = [...this.#beats, this.silence].slice(-LATE);
    this.list.push({ ...reading, at });
    if (this.list.length > MOST) this.list.shift();
    this.#arrived = performance.now();
    const late = this.list.slice(-LATE);
    this.every = median(late.slice(1).map((one, index) => one.at - late[index].at)) ?? this.every;
    this.beat = median(this.#beats) ?? this.beat;
  }

  clear() {
    this.list = [];
  }

  /** Returns the readings from a moment on, in runs without a gap. The last one before it leads the first run. */
  runs(from) {
    const first = Math.max(0, this.list.findIndex(({ at }) => at >= from) - 1);
    const runs = [];
    if (this.empty || this.last.at < from) return runs;
    for (const reading of this.list.slice(first)) {
      const run = runs.at(-1);
      if (run && reading.at - run.at(-1).at <= this.bridge) run.push(reading);
      else runs.push([reading]);
    }
    return runs;
  }

  /** Returns the times without readings between two moments: [from, to]. */
  gaps(from, to) {
    const runs = this.runs(from);
    const ends = runs.map((run) => run.at(-1).at);
    const starts = [...runs.slice(1).map((run) => run[0].at), to];
    if (!runs.length && !this.empty) return [[from, to]];
    return ends.map((end, index) => [end, starts[index]]).filter(([a, b]) => b - a > this.bridge);
  }

  nearest(moment) {
    const far = ({ at }) => Math.abs(at - moment);
    return this.list.reduce((best, one) => (far(one) < far(best) ? one : best), this.last);
  }

  /** Returns how fast a value changes, per hour of the rover's, or null if there are too few readings without a gap. */
  trend(value) {
    const run = this.runs(this.list.at(-TREND)?.at ?? -Infinity).at(-1) ?? [];
    if (run.length < ENOUGH) return null;
    const times = run.map(({ at }) => (at - run[0].at) / 3_600_000);
    const values = run.map(value);
    const [time, middle] = [mean(times), mean(values)];
    const spread = times.reduce((sum, one) => sum + (one - time) ** 2, 0);
    return times.reduce((sum, one, index) => sum + (one - time) * (values[index] - middle), 0) / spread;
  }
}

function mean(numbers) {
  return numbers.reduce((sum, one) => sum + one, 0) / numbers.length;
}

function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
}
