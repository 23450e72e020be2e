// Follows what happens to the sessions, in this tab or elsewhere, while the tab is visible.

import { tail } from "../js/tailrace.js";
import { report, wake } from "./connection.js";
import { headers, URL_OF_SERVER } from "./server.js";
import { visible, whenHidden } from "./visibility.js";

const NAME = "changes";

export class Changes {
  #on;
  #stream = null;
  #cursor;
  #round = null;

  /** `on` has the functions change(object), missed(), when changes may have been missed, and failed(error). */
  constructor(on) {
    this.#on = on;
  }

  /** Follows from now on. A second call begins anew, with the key that the page has now. */
  async follow() {
    this.#round?.abort();
    const round = (this.#round = new AbortController());
    whenHidden(() => this.#pause(), round.signal);
    while (!round.signal.aborted) {
      await visible(round.signal);
      await this.#read(round.signal);
    }
  }

  async #read(signal) {
    this.#stream = tail(new URL("sessions/changes", URL_OF_SERVER).href, {
      accept: "application/x-ndjson",
      headers,
      signal,
      after: this.#cursor,
      onReset: "restart",
      retry: { limit: Infinity, cap: 10 },
      timeouts: { event: Infinity },
      wake,
      onState: (state) => this.#tell(state, signal),
    });
    try {
      for await (const { event, data } of this.#stream) {
        if (event === "reset") this.#on.missed();
        else this.#on.change(data);
      }
    } catch (error) {
      if (signal.aborted) return;
      this.#round.abort();
      report(NAME, null);
      this.#on.failed(error);
    } finally {
      this.#cursor = this.#stream.cursor ?? undefined;
    }
  }

  #tell(state, signal) {
    if (signal.aborted || document.visibilityState !== "visible") return;
    report(NAME, state);
    if (state.state === "open") this.#on.missed();
  }

  #pause() {
    this.#stream?.close();
    report(NAME, null);
  }
}
