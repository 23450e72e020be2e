// A message and its reply while the reply is being written: what arrives is shown, and the model can be stopped.

import { announce, notice } from "./notices.js";
import { Reading } from "./reading.js";
import { problem, stateOf, troubleOf } from "./words.js";

export class Exchange {
  #turn;
  #reading;
  #on;
  #isStopping = false;
  #isWaiting = false; // whether the connection is lost
  #again = false; // whether the text comes again, after a reset

  /**
   * `asked` is the message to send, {message, sessionId, replaced, key}, or null to read a reply in progress. `replaced`
   * is the turn that it replaces, or null. `on` has the functions begun(info) and stopping(isStopping).
   */
  constructor(turn, asked, protocol, on) {
    this.#turn = turn;
    this.#on = on;
    const path = asked ? "chat/stream?html=true" : `chat/stream/${encodeURIComponent(turn.streamId)}?html=true`;
    const request = asked ? { json: bodyOf(asked), idempotencyKey: asked.key } : {};
    this.#again = asked === null;
    this.#reading = new Reading(path, request, {
      object: (object) => this.#take[object.type]?.(object),
      reset: () => this.#reset(),
      state: (state) => this.#connected(state),
    }, protocol);
  }

  /** Reads to the end. Returns the error if that is impossible. */
  async run() {
    try {
      await this.#reading.run();
      const isOver = this.#turn.reply.facts.state !== "generating" || this.#reading.wasLeft;
      if (!isOver) throw new Error("the reply had no end");
      return null;
    } catch (error) {
      return error;
    }
  }

  leave() {
    this.#reading.leave();
  }

  /** Stops the model. The end of the reply then arrives in its stream. A message without an answer is given up. */
  async stop() {
    if (this.#isStopping) return;
    if (!this.#reading.isKnown && this.#isWaiting) return this.#reading.giveUp();
    this.#isStopping = true;
    this.#on.stopping(true);
    try {
      await this.#reading.stop();
    } catch (error) {
      if (this.#turn.reply.facts.state !== "generating") return;
      this.#isStopping = false;
      this.#on.stopping(false);
      notice(`The reply was not stopped. ${problem(error)}`);
    }
  }

  /** The handlers for the objects of a reply's stream, by type. */
  #take = {
    session_info: (info) => {
      this.#turn.streamId = info.stream_id;
      this.#turn.reply.name(info.model);
      this.#on.begun(info);
    },
    status: ({ context_messages: context, dropped_messages: dropped }) => this.#tell({ context, dropped }),
    chunk: ({ text, blocks, chunk_number: chunks }) => {
      this.#turn.reply.append(text, blocks);
      this.#tell(this.#again ? {} : { chunks });
    },
    complete: ({ state, total_chunks: chunks, processing_time: seconds, blocks }) => {
      this.#end({ state, chunks, seconds }, blocks);
    },
    error: ({ code, message, blocks }) => {
      this.#end({ state: code === "interrupted" ? "interrupted" : "failed", error: message }, blocks);
    },
  };

  #tell(facts) {
    this.#turn.reply.tell(facts);
  }

  #end(facts, blocks) {
    if (blocks?.length) this.#turn.reply.append("", blocks);
    this.#tell(facts);
    announce([stateOf(facts), troubleOf(this.#turn.reply.facts)].filter(Boolean).join(". "));
  }

  /** Takes a reset. The text comes again, but not in the pieces that it was written in. */
  #reset() {
    this.#again = true;
    this.#turn.reply.reset();
    this.#tell({ chunks: 0 });
  }

  #connected({ state }) {
    this.#isWaiting = state === "waiting" || (this.#isWaiting && state !== "open");
  }
}

function bodyOf({ message, sessionId, replaced }) {
  return {
    message,
    ...(sessionId === null ? {} : { session_id: sessionId, create: false }),
    ...(replaced === null ? {} : { replace: replaced.streamId }),
  };
}
