// The history of a session, as the server has it.

import { Refusal } from "./refusal.js";
import { ask } from "./server.js";

const TURNS = 40; // of a page

/** Returns a session with a page of its turns, or undefined if there is no such session. `place` changes the query. */
export async function turnsOf(sessionId, place = {}) {
  try {
    const path = `sessions/${encodeURIComponent(sessionId)}`;
    const { messages, ...session } = await ask("GET", path, { limit: TURNS, html: true, ...place });
    return { ...session, turns: pairs(messages) };
  } catch (error) {
    if (error instanceof Refusal && (error.status === 404 || error.status === 422)) return undefined;
    throw error;
  }
}

/** Returns the turns of a history: [{text, streamId, answer}]. */
function pairs(messages) {
  const turns = [];
  for (let index = 0; index + 1 < messages.length; index += 2) {
    const [asked, answered] = messages.slice(index, index + 2);
    const { state, error, model, text, html, total_chunks: chunks, processing_time: seconds } = answered;
    const facts = { state, error, chunks, seconds };
    turns.push({ text: asked.text, streamId: answered.stream_id, answer: { model, text, html, facts } });
  }
  return turns;
}

/** Counts the first turns of a history that are shown as they are. */
export function sameTurns(shown, turns) {
  const differs = turns.findIndex(
    ({ streamId, answer }, index) =>
      shown[index]?.streamId !== streamId || shown[index].reply.facts.state !== answer.facts.state,
  );
  return differs < 0 ? turns.length : differs;
}
