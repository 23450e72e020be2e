// The visibility of this tab. A browser opens about six connections to a host, so hidden tabs give theirs back.

const LINGER = 2000; // milliseconds that a hidden tab keeps its connections, for those who look elsewhere for a moment

export function isVisible() {
  return document.visibilityState === "visible";
}

/** Is fulfilled when the tab is visible, or the signal is aborted. */
export function visible(signal) {
  return new Promise((resolve) => {
    if (isVisible() || signal.aborted) return resolve();
    signal.addEventListener("abort", resolve, { once: true });
    return document.addEventListener("visibilitychange", () => isVisible() && resolve(), { signal });
  });
}

/** Calls a function each time when the tab has been hidden for some seconds. */
export function whenHidden(act, signal) {
  let timer = 0;
  const changed = () => {
    clearTimeout(timer);
    if (!isVisible()) timer = setTimeout(act, LINGER);
  };
  document.addEventListener("visibilitychange", changed, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  changed();
}
