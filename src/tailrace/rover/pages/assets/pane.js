// One channel in its pane: its messages, who is there, and what the user writes.

import { element } from "./dom.js";
import { follow } from "./feeds.js";
import { Outbox, row } from "./messages.js";
import { Scroll } from "./scroll.js";
import { kept, page, sentence, State } from "./status.js";
import { join } from "./tailrace.js";
import { count } from "./words.js";

const CHANNEL = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const MOST = 500; // messages that are shown
const TOGETHER = 120_000; // milliseconds; messages of one member within them share a head
const NAMED = 6; // members that are named without being asked for
const SETTLED = 500; // milliseconds in which a connection gives the history of its channel
const SOON = 300; // milliseconds in which several doubts about the members become one question

export class Pane {
  unread = 0;
  #root = page.pane.content.cloneNode(true).firstElementChild;
  #part;
  #options;
  #channel = null;
  #name = null;
  #room = null;
  #leave = null;
  #state;
  #scroll;
  #connected = false;
  #history = true; // whether what arrives may be from before the channel was joined
  #members = new Set();
  #shown = new Set(); // the messages that are shown, as JSON
  #asking = 0; // the timer of the next request for the members
  #frame = 0;
  #last = null; // the message that was shown last: {member, at}
  #restless = null; // the row that says who came and went: {item, moves}
  #outbox;

  /** `options` has `key`, under which the channel is kept, the `channel` to begin with, `url` and `onUnread`. */
  constructor(parent, options) {
    this.#options = options;
    const parts = [...this.#root.querySelectorAll("[data-part]")];
    this.#part = Object.fromEntries(parts.map((one) => [one.dataset.part, one]));
    this.#identify(options.key);
    parent.append(this.#root);
    this.#channel = options.channel;
    this.#state = new State(this.#part.state, options.channel);
    this.#state.feed({ state: "off" });
    this.#showMembers();
    this.#scroll = new Scroll(this.#part.log, this.#part.newest, () => this.#read());
    this.#outbox = new Outbox(this.#part.list, {
      send: (text) => this.#room.send(text),
      onChange: () => {
        this.#showEmpty();
        this.#scroll.follow();
      },
      onEdit: (text) => this.#edit(text),
    });
    this.#listen();
    this.#entitle();
  }

  /** Connects under a name. Without one, the pane cannot. */
  as(name) {
    if (name === this.#name) return;
    this.#name = name;
    this.#open(this.#channel);
  }

  focus() {
    this.#part.field.focus();
  }

  // The channel

  /** Gives the pane's elements ids of their own, so that labels name them. */
  #identify(key) {
    for (const one of this.#root.querySelectorAll("[data-id]")) one.id = `${key}-${one.dataset.id}`;
    for (const name of ["for", "aria-labelledby", "aria-controls", "aria-describedby"]) {
      for (const one of [this.#root, ...this.#root.querySelectorAll(`[${name}]`)]) {
        if (one.hasAttribute(name)) one.setAttribute(name, `${key}-${one.getAttribute(name)}`);
      }
    }
  }

  #listen() {
    const { change, choose, field, form, channel, stay, again, here, members } = this.#part;
    here.addEventListener("click", () => {
      members.hidden = !members.hidden;
      here.setAttribute("aria-expanded", String(!members.hidden));
      this.#showMembers();
    });
    change.addEventListener("click", () => this.#toggle(choose.hidden));
    stay.addEventListener("click", () => this.#toggle(false));
    choose.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#join(channel.value.trim());
    });
    choose.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#toggle(false);
    });
    again.addEventListener("click", () => this.#open(this.#channel));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    addEventListener("pagehide", () => this.#keepUnsent());
    field.addEventListener("input", () => this.#keepDraft());
    field.addEventListener("keydown", (event) => {
      // While the user composes characters, Enter selects one of them. Safari reports this only by the key code 229.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit();
    });
    // Only the messages of the channel that the user is in are read out as they come.
    this.#root.addEventListener("focusin", () => this.#part.log.setAttribute("aria-live", "polite"));
    this.#root.addEventListener("focusout", () => this.#part.log.setAttribute("aria-live", "off"));
  }

  #toggle(visible) {
    const { change, choose, channel, fault } = this.#part;
    choose.hidden = !visible;
    change.setAttribute("aria-expanded", String(visible));
    fault.textContent = "";
    channel.setAttribute("aria-invalid", "false");
    if (!visible) return change.focus();
    channel.value = this.#channel;
    return channel.select();
  }

  #join(channel) {
    const { fault, channel: input } = this.#part;
    const wrong = CHANNEL.test(channel) ? "" : "Use 1 to 64 letters, digits, dots, hyphens or underscores.";
    fault.textContent = wrong;
    input.setAttribute("aria-invalid", String(wrong !== ""));
    if (wrong) return input.focus();
    this.#toggle(false);
    kept.set(this.#options.key, channel);
    if (channel !== this.#channel) this.#open(channel);
    return this.focus();
  }

  /** Leaves the channel that is shown, and connects to another one or anew. */
  #open(channel) {
    this.#leave?.abort();
    this.#keepUnsent();
    this.#channel = channel;
    this.#clear();
    this.#state.name = channel;
    this.#state.feed({ state: "off" });
    this.#entitle();
    this.#part.field.value = this.#keptDraft();
    this.#tell("");
    if (!this.#name) return;
    const leave = new AbortController();
    this.#leave = leave;
    this.#history = true;
    this.#room = follow(join, this.#options.url(channel), {
      params: { name: this.#name },
      signal: leave.signal,
      onEvent: (event) => this.#take(event),
      onState: (state) => this.#follow(state, leave.signal),
      onDegraded: (isDegraded) => (this.#state.late = isDegraded),
    });
  }

  #clear() {
    this.#part.list.replaceChildren();
    this.#outbox.clear();
    this.#shown.clear();
    this.#last = null;
    this.#restless = null;
    this.#connected = false;
    this.#members.clear();
    this.#showMembers();
    this.#read();
  }

  #entitle() {
    this.#part.title.textContent = this.#channel;
    this.#part.label.textContent = `Message to ${this.#channel}`;
    this.#part.log.setAttribute("aria-label", `Messages in ${this.#channel}`);
    this.#part.empty.textContent = this.#name
      ? `No messages in ${this.#channel} yet. Write the first one below.`
      : "Enter your name above to join this channel.";
    this.#showEmpty();
  }

  #follow(now, signal) {
    this.#connected = now.state === "open";
    this.#state.feed(now);
    this.#showMembers();
    this.#part.empty.classList.toggle("unseen", now.state === "refused");
    this.#part.again.hidden = !["ended", "failed", "refused", "replaced"].includes(now.state);
    if (now.state === "failed") this.#tell(sentence(now.reason));
    if (now.state === "refused") this.#tell(`${sentence(now.reason)} Join again, or change the channel or your name.`);
    if (now.state === "replaced") this.#tell("Another window reads this channel under your name.");
    if (this.#connected) {
      this.#tell("");
      this.#askWho();
      this.#outbox.reconnected(signal);
      setTimeout(() => this.#settle(signal), SETTLED);
    }
  }

  #settle(signal) {
    if (!signal.aborted && this.#connected) this.#history = false;
  }

  #tell(words) {
    this.#part.note.textContent = words;
    this.#part.note.hidden = words === "";
  }

  // What comes

  #take({ event, data }) {
    if (event === "message") return this.#show(data);
    if (event === "join" || event === "leave") return this.#moved(event, data);
    if (event === "refused") return this.#outbox.refuse(data.message) || this.#tell(`Refused: ${data.message}.`);
    if (event === "reset" && data.reason === "trimmed") return this.#aside("Some messages are no longer kept.");
    if (event === "reset") return this.#aside("The channel was restarted. Earlier messages are kept on this page only.");
    if (event === "dropped") this.#aside(`${count(data.count, "message")} did not reach this page.`);
    return undefined;
  }

  #show({ member, message, time }) {
    const own = member === this.#name;
    const text = typeof message === "string" ? message : JSON.stringify(message);
    const at = Date.parse(time);
    // A channel that began anew may have messages that are shown already, with other ids.
    const same = JSON.stringify([member, time, text]);
    if (this.#shown.has(same)) return;
    this.#shown.add(same);
    if (own) this.#outbox.settle(text);
    const headed = this.#last?.member !== member || at - this.#last.at > TOGETHER;
    this.#last = { member, at };
    this.#restless = null;
    this.#append(row({ member: own ? "You" : (member ?? "Anonymous"), at, text, own, headed }));
    if (own) this.#scroll.toEnd();
    else if (!this.#history && !this.#scroll.seen) this.#count();
  }

  /** Appends a row, before own messages that have not come back. */
  #append(item) {
    const { list } = this.#part;
    list.insertBefore(item, this.#outbox.first);
    while (list.childElementCount > MOST) list.firstChild.remove();
    if (this.#shown.size > MOST) this.#shown.delete(this.#shown.values().next().value);
    this.#showEmpty();
    this.#scroll.follow();
  }

  #aside(words) {
    this.#last = null;
    this.#restless = null;
    const item = element("li", { class: "aside" }, [words]);
    this.#append(item);
    return item;
  }

  #showEmpty() {
    this.#part.empty.hidden = this.#part.list.childElementCount > 0;
  }

  #count() {
    this.unread += 1;
    this.#showUnread();
  }

  #read() {
    if (this.unread === 0) return;
    this.unread = 0;
    this.#showUnread();
  }

  #showUnread() {
    const { unread } = this.#part;
    unread.hidden = this.unread === 0;
    unread.textContent = `${this.unread} unread`;
    this.#options.onUnread();
  }

  // Who is there

  async #askWho() {
    clearTimeout(this.#asking);
    this.#asking = 0;
    if (!this.#connected) return;
    const url = new URL(`${this.#options.url(this.#channel)}/members`);
    url.searchParams.set("name", this.#name);
    try {
      const response = await fetch(url, { cache: "no-store", signal: this.#leave.signal });
      if (!response.ok) return;
      const { members } = await response.json();
      this.#members = new Set(members.map(({ id }) => id));
      this.#showMembers();
    } catch {
      // The feed itself says what is wrong, and asks again when it is back.
    }
  }

  #moved(event, { member, members }) {
    if (event === "join") this.#members.add(member);
    else this.#members.delete(member);
    if (member !== this.#name) this.#comings(member, event);
    this.#showMembers();
    if (members === undefined || members === this.#members.size) return;
    this.#asking ||= setTimeout(() => this.#askWho(), SOON); // the news is old, or some was lost
  }

  /** Shows who came and went, in one row until the next message, so that a restless member does not push it away. */
  #comings(member, event) {
    this.#restless ??= { item: this.#aside(""), moves: new Map() };
    const { item, moves } = this.#restless;
    moves.delete(member);
    moves.set(member, event === "join" ? "joined" : "left");
    item.textContent = [...moves].map(([name, move]) => `${name} ${move}`).join(" · ");
    this.#scroll.follow();
  }

  #showMembers() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#drawMembers();
    });
  }

  #drawMembers() {
    const { here, members } = this.#part;
    const names = [...this.#members].sort((a, b) => (b === this.#name) - (a === this.#name) || a.localeCompare(b));
    const called = names.map((name) => (name === this.#name ? "you" : name));
    const more = called.length - NAMED;
    const some = more > 0 ? `${called.slice(0, NAMED).join(", ")} and ${more} more` : called.join(", ");
    here.textContent = this.#connected ? `${called.length} here: ${some}` : `Last here: ${some}`;
    here.hidden = called.length === 0;
    if (members.hidden) return;
    members.replaceChildren(...called.slice(0, MOST).map((name) => element("li", {}, [name])));
  }

  // What the user writes

  #submit() {
    const { field } = this.#part;
    const text = field.value.trimEnd().toWellFormed();
    if (!this.#name) return page.name.focus();
    if (text === "") return undefined;
    this.#draft("");
    this.#outbox.send(text);
    return this.#scroll.toEnd();
  }

  /** Lets the user change a message before it is sent. */
  #edit(text) {
    const { field } = this.#part;
    this.#draft(field.value ? `${text}\n${field.value}` : text);
    field.focus();
  }

  /** Writes a text into the field, and keeps it. */
  #draft(text) {
    this.#part.field.value = text;
    this.#keepDraft(text);
  }

  #keepDraft(text = this.#part.field.value) {
    kept.set(`draft-${this.#options.key}-${this.#channel}`, text, sessionStorage);
  }

  #keptDraft() {
    return kept.get(`draft-${this.#options.key}-${this.#channel}`, sessionStorage) ?? "";
  }

  /** Keeps messages that were not sent as a draft. */
  #keepUnsent() {
    const { unsent } = this.#outbox;
    if (unsent) this.#keepDraft(`${unsent}\n${this.#part.field.value}`.trim());
  }
}
