// Copies text, and says so at the button.

import { announce } from "./notices.js";

const SHOWN = 2000; // milliseconds

/** Copies a text to the clipboard. The last element of `button` is its label. */
export async function copy(text, button) {
  const copied = await write(text);
  const label = button.lastElementChild;
  const words = copied ? "Copied" : "Copy failed";
  announce(words);
  if (label.dataset.usual) return;
  label.dataset.usual = label.textContent;
  label.textContent = words;
  setTimeout(() => {
    label.textContent = label.dataset.usual;
    delete label.dataset.usual;
  }, SHOWN);
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return writeFromField(text); // the clipboard's API exists on secure origins only
  }
}

function writeFromField(text) {
  const field = document.createElement("textarea");
  const focused = document.activeElement;
  field.className = "unseen";
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return copied;
}
