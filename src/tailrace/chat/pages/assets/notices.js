// Tells the user what happened and what was kept, and asks for an API key and for consent.

import { page } from "./page.js";
import { hasKey, keepKey } from "./server.js";

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
    closeNotice();
    action.act();
  };
}

export function closeNotice() {
  page.notice.hidden = true;
}

/** Asks for an API key and keeps it. Then repeats the action that needed it. */
export function askForKey(then) {
  page.key.hidden = false;
  page.send.disabled = true;
  closeNotice();
  if (hasKey()) notice("The server does not know this API key. Enter another one.");
  page.secret.focus();
  page.key.onsubmit = (event) => {
    event.preventDefault();
    keepKey(page.secret.value.trim());
    page.secret.value = "";
    page.key.hidden = true;
    page.send.disabled = false;
    closeNotice();
    page.message.focus();
    then();
  };
}

/** Asks whether to do what cannot be undone. `label` names it on the button. */
export async function consent(question, consequence, label) {
  page.question.textContent = question;
  page.consequence.textContent = consequence;
  page.confirm.textContent = label;
  page.asking.returnValue = "";
  page.asking.showModal();
  await new Promise((resolve) => page.asking.addEventListener("close", resolve, { once: true }));
  return page.asking.returnValue === "confirm";
}

page.dismiss.addEventListener("click", () => {
  closeNotice();
  page.message.focus();
});
