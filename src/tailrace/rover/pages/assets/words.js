// Numbers and times as the page writes them. The widths of figures that change are steady.

/** Returns a number with a fixed count of decimals and a true minus sign. */
export function number(value, decimals = 0) {
  return Number.isFinite(value) ? value.toFixed(decimals).replace("-", "−").replace(/^−(0(\.0+)?)$/, "$1") : "–";
}

export function count(value, one, many = `${one}s`) {
  return `${value.toLocaleString("en")} ${value === 1 ? one : many}`;
}

export function percent(part) {
  return Number.isFinite(part) ? `${Math.floor(part * 100)} %` : "a part";
}

/** Returns an amount of bytes. */
export function amount(bytes) {
  if (bytes < 999_500) return `${Math.round(bytes / 1_000)} kB`;
  const megabytes = bytes / 1_000_000;
  return `${megabytes.toFixed(megabytes < 10 ? 2 : megabytes < 100 ? 1 : 0)} MB`;
}

export function seconds(value) {
  if (value < 0.1) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  return `${Math.round(value / 60)} min`;
}

/** Returns the time of day in UTC. */
export function clock(milliseconds, { withSeconds = true } = {}) {
  return new Date(milliseconds).toISOString().slice(11, withSeconds ? 19 : 16);
}

const DIRECTIONS = ["north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west"];

export function direction(degrees) {
  return DIRECTIONS[Math.round((((degrees % 360) + 360) % 360) / 45) % 8];
}

/** Returns a direction as on a compass, such as NW. */
export function initials(degrees) {
  return direction(degrees).split("-").map((word) => word[0].toUpperCase()).join("");
}

export function coordinate(value, [positive, negative]) {
  return `${number(Math.abs(value), 5)}° ${value < 0 ? negative : positive}`;
}
