// Messages that are not sent yet, one for each session. They survive a reload of the tab.

const NAME = "tailrace-draft:";

/**
 * Returns the draft of a session: {text, key}. `key` is there if the text may have been sent already. Sending it again
 * with that key asks the model only once.
 */
export function draftOf(sessionId) {
  const kept = sessionStorage.getItem(nameOf(sessionId));
  return kept === null ? { text: "", key: null } : JSON.parse(kept);
}

export function keepDraft(sessionId, text, key = null) {
  if (text === "") return sessionStorage.removeItem(nameOf(sessionId));
  try {
    return sessionStorage.setItem(nameOf(sessionId), JSON.stringify({ text, key }));
  } catch {
    return undefined; // the storage is full; the text is still in its field
  }
}

function nameOf(sessionId) {
  return NAME + (sessionId ?? "");
}
