// Reads streams with the JavaScript client for tests in Python, in Node and in a browser.

/**
 * Returns a function that reads a stream to its end, and says as JSON what came of it.
 *
 * Its options are those of `tail`, and `stopAfter`: the number of events after which it stops the stream.
 */
export function reader({ tail }) {
  return async ({ url, stopAfter, ...options }) => {
    const got = { events: [], waits: [], states: [], error: null };
    const onState = ({ state, reason }) => {
      got.states.push(state);
      if (state === "waiting") got.waits.push(reason);
    };
    const stream = tail(url, { retry: { base: 0 }, ...options, onState });
    try {
      for await (const event of stream) {
        got.events.push(event);
        if (got.events.length === stopAfter) await stream.stop();
      }
    } catch (error) {
      got.error = described(error);
    }
    const { outcome, cursor, address, stopAddress, mediaType, state } = stream;
    return { ...got, outcome, cursor, address, stopAddress, mediaType, state };
  };
}

function described(error) {
  return { ...error, name: error.name, text: error.message, before: undefined, stack: error.stack };
}
