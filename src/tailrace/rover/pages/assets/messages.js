// The messages of a channel as rows of its list, and those that are on their way to the server.

import { element } from "./dom.js";
import { announce, sentence } from "./status.js";

const DOUBT = 5_000; // milliseconds on a new connection after which a message that has not come back is in doubt

/** Own messages that have not come back. They are the last rows of the list. */
export class Outbox {
  #list;
  #options;
  #sent = []; // {text, item, state}, where the state is kept, sent, doubtful or refused

  /**
   * - `send(text)`: sends a message as soon as there is a connection. The promise is fulfilled when it is on its way.
   * - `onChange()`: called when a row has come, gone or changed.
   * - `onEdit(text)`: called with the text that the user wants to change.
   */
  constructor(list, options) {
    this.#list = list;
    this.#options = options;
  }

  /** The first row, before which other messages belong. */
  get first() {
    return this.#sent[0]?.item ?? null;
  }

  /** The messages that the server cannot have, as one text. */
  get unsent() {
    return this.#sent.filter(({ state }) => state !== "sent").map(({ text }) => text).join("\n");
  }

  clear() {
    this.#sent = [];
  }

  send(text) {
    const item = row({ member: "You", at: Date.now(), text, own: true, headed: true });
    item.classList.add("pending");
    item.setAttribute("aria-live", "off"); // it is read out when it comes back
    this.#list.append(item);
    const message = { text, item, state: "kept" };
    this.#sent.push(message);
    this.#pass(message);
  }

  /** Notes a new connection. What was sent before and does not come back now may be lost. */
  reconnected(signal) {
    const doubtful = this.#sent.filter(({ state }) => state === "sent");
    if (!doubtful.length) return;
    const timer = setTimeout(() => this.#doubt(doubtful), DOUBT);
    signal.addEventListener("abort", () => clearTimeout(timer));
  }

  /** Takes away the message that has come back. */
  settle(text) {
    const found = this.#sent.findIndex((one) => one.state !== "refused" && one.text === text);
    if (found >= 0) this.#sent.splice(found, 1)[0].item.remove();
  }

  /** Says why a message was refused. The server refuses in order. Returns whether there is such a message. */
  refuse(reason) {
    const message = this.#sent.find(({ state }) => state === "sent");
    if (!message) return false;
    const edit = () => {
      this.#remove(message);
      this.#options.onEdit(message.text);
    };
    announce("Message not sent");
    this.#tell(message, "refused", `Not sent: ${sentence(reason)}`, [button("Edit", edit), this.#discard(message)]);
    return true;
  }

  async #pass(message) {
    this.#tell(message, "kept", "Kept. It is sent when the channel is connected.");
    try {
      await this.#options.send(message.text);
    } catch {
      return; // the channel is over, and the message becomes a draft
    }
    if (this.#sent.includes(message)) this.#tell(message, "sent", "Sending");
  }

  #doubt(doubtful) {
    for (const message of doubtful) {
      if (!this.#sent.includes(message) || message.state !== "sent") continue;
      const ways = [button("Send again", () => this.#pass(message)), this.#discard(message)];
      this.#tell(message, "doubtful", "Not known whether it was sent.", ways);
    }
  }

  #discard(message) {
    return button("Discard", () => this.#remove(message));
  }

  #remove(message) {
    this.#sent.splice(this.#sent.indexOf(message), 1);
    message.item.remove();
    this.#options.onChange();
  }

  /** Says below a message what became of it, and what the user can do. */
  #tell(message, state, words, ways = []) {
    message.state = state;
    message.item.querySelector(".fate")?.remove();
    message.item.classList.toggle("bad", ways.length > 0);
    message.item.append(element("div", { class: "fate" }, [element("span", {}, [words]), ...ways]));
    this.#options.onChange();
  }
}

/** Returns the row of a message. `headed` tells whether it names the member and the time. */
export function row({ member, at, text, own, headed }) {
  const said = element("p", { dir: "auto" }, [text]);
  const head = headed ? [element("h4", {}, [element("span", { dir: "auto" }, [member]), " ", timeOf(at)])] : [];
  const classes = `message${own ? " own" : ""}${headed ? " headed" : ""}`;
  return element("li", { class: classes }, [...head, said]);
}

/** Returns a time of day, by the user's clock. */
function timeOf(at) {
  if (!Number.isFinite(at)) return "";
  const date = new Date(at);
  const words = date.toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  return element("time", { datetime: date.toISOString(), title: date.toLocaleString() }, [words]);
}

function button(label, act) {
  const made = element("button", { type: "button" }, [label]);
  made.addEventListener("click", act);
  return made;
}
