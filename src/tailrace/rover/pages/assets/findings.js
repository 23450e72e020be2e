// What readings mean in words: the titles of the plots, and the values beside them.

import { clock, coordinate, direction, initials, number } from "./words.js";

export const LOW = 20; // percent of the battery
const FULL = 99.95;

const ambient = ({ temperature }) => temperature.ambient;
const body = ({ temperature }) => temperature.body;
const battery = (reading) => reading.battery;
const signal = (reading) => reading.signal;

/** The plots by their ids in the page. `finding` returns {words, bad}, and `series` and `range` are those of Plot. */
export const PLOTS = [
  { id: "battery", series: [{ name: "battery", value: battery }], range: [0, 100], unit: "%", finding: ofBattery },
  {
    id: "temperature",
    series: [
      { name: "body", value: body },
      { name: "ambient", value: ambient },
    ],
    range: 20,
    unit: "°C",
    finding: ofTemperature,
  },
  { id: "signal", series: [{ name: "signal", value: signal }], range: [0, 100], unit: "%", finding: ofSignal },
];

/** Returns how a value changes, in words. Below `least` an hour it is steady. */
function change(perHour, least) {
  if (perHour === null) return "";
  if (Math.abs(perHour) < least) return ", steady";
  return perHour > 0 ? ", rising" : ", falling";
}

function ofBattery(readings) {
  const level = readings.last.battery;
  const perHour = readings.trend(battery);
  const bad = level < LOW;
  if (level >= FULL) return { words: "Battery 100 %, full" };
  const now = `Battery ${number(level, 1)} %${bad ? ", low" : ""}`;
  if (perHour === null) return { words: now, bad };
  if (Math.abs(perHour) < 0.5) return { words: `${now}, steady`, bad };
  return { words: `${now}, ${perHour > 0 ? "charging, +" : "falling, "}${number(perHour, 1)} %/h`, bad };
}

function ofTemperature(readings) {
  const inside = `Body ${number(body(readings.last), 1)} °C${change(readings.trend(body), 2)}`;
  const outside = `ambient ${number(ambient(readings.last), 1)} °C${change(readings.trend(ambient), 1)}`;
  return { words: `${inside}; ${outside}` };
}

function ofSignal(readings) {
  const level = signal(readings.last);
  if (level === 0) return { words: "Signal 0 %, no relay in view" };
  return { words: `Signal ${number(level, 1)} %${change(readings.trend(signal), 20)}` };
}

/** Returns where the rover drives, as the title of the map. */
export function ofDrive({ speed, heading }) {
  if (speed > 0) return `Driving ${direction(heading)} at ${number(speed * 100, 1)} cm/s`;
  return `Standing, facing ${direction(heading)}`;
}

/** Returns the values of a reading by their ids in the page. */
export function valuesOf(reading) {
  const { location, power, sun, speed, heading } = reading;
  return {
    sol: `Sol ${reading.sol}`,
    local: reading.local_time,
    doing: reading.state,
    speed: `${number(speed * 100, 1)} cm/s`,
    heading: `${number(heading)}° ${initials(heading)}`,
    odometer: `${number(reading.odometer, 1)} m`,
    elevation: `${number(location.elevation, 1)} m`,
    sun: `${number(sun)}° ${sun < 0 ? "below" : "above"}`,
    solar: `${number(power.solar)} W`,
    load: `${number(power.load)} W`,
    latitude: coordinate(location.latitude, ["N", "S"]),
    longitude: coordinate(location.longitude, ["E", "W"]),
    ...relayOf(reading),
  };
}

function relayOf({ relay, signal: level }) {
  if (level === 0) return { orbiter: "", relay: "none in view" };
  return { orbiter: relay.orbiter, relay: `${number(relay.strength)} dBm` };
}

/** Returns what the plots show of a reading, in a line. */
export function summaryOf(reading) {
  return [
    `${clock(reading.at)} UTC`,
    `battery ${number(battery(reading), 1)} %`,
    `body ${number(body(reading), 1)} °C`,
    `ambient ${number(ambient(reading), 1)} °C`,
    `signal ${number(signal(reading), 1)} %`,
    reading.state,
  ].join(" · ");
}

/** Returns the cells of a reading's row in the table. */
export function cellsOf(reading) {
  return [
    clock(reading.at),
    number(battery(reading), 1),
    number(body(reading), 1),
    number(ambient(reading), 1),
    number(signal(reading), 1),
    number(reading.speed * 100, 1),
    number(reading.heading),
    reading.state,
  ];
}
