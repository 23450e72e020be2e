// The status and notices of the page, and its form for an API key.

import { hasKey, keepKey } from "./server.js";

/** The elements of the page by their ids. */
export const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));

/** Shows the state in words. `kind` is busy, good or bad. */
export function say(words, kind = "good") {
  page.state.textContent = words;
  page.state.dataset.kind = kind;
}

/** Announces a text to screen readers. */
export function announce(words) {
  page.announcer.textContent = words;
}

/** Shows what happened and what was kept, with an action for the user: {label, act}. */
export function notice(words, action = null) {
  page.notice.hidden = false;
  page.notice.firstElementChild.textContent = words;
  page.act.hidden = !action;
  page.act.textContent = action?.label ?? "";
  page.act.onclick = () => {
    page.notice.hidden = true;
    action.act();
  };
}

/** Asks for an API key and keeps it. Then repeats the action that needed it. */
export function askForKey(then) {
  page.key.hidden = false;
  page.notice.hidden = !hasKey();
  if (hasKey()) notice("The server does not know this API key. Enter another one.");
  say("An API key is needed", "bad");
  page.secret.focus();
  page.key.onsubmit = (event) => {
    event.preventDefault();
    keepKey(page.secret.value.trim());
    page.secret.value = "";
    page.key.hidden = true;
    page.notice.hidden = true;
    page.message.focus();
    then();
  };
}

page.dismiss.addEventListener("click", () => {
  page.notice.hidden = true;
  page.message.focus();
});
