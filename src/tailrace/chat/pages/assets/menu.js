// The menu of a session: a popover beside the button that opened it, with the keys of a menu.

import { page } from "./page.js";

const GAP = 4; // pixels

const items = [...page.choices.querySelectorAll("button")];
let opener = null;
let chosen = null; // what to call with the choice

/** Opens the menu beside a button, or closes it. `choose` is called with the choice: rename, clear or delete. */
export function toggleMenu(button, choose) {
  const isOpen = page.choices.matches(":popover-open");
  if (isOpen) page.choices.hidePopover();
  opener?.setAttribute("aria-expanded", "false");
  if (isOpen && opener === button) return;
  opener = button;
  button.popoverTargetElement = page.choices; // a press on it is not one outside of the menu, which would close it
  chosen = choose;
  page.choices.showPopover();
  place();
  button.setAttribute("aria-expanded", "true");
  items[0].focus();
}

function place() {
  const { bottom, right, top } = opener.getBoundingClientRect();
  const { offsetHeight: height, offsetWidth: width } = page.choices;
  const below = bottom + GAP + height < innerHeight;
  page.choices.style.top = `${below ? bottom + GAP : top - GAP - height}px`;
  page.choices.style.left = `${Math.max(GAP, Math.min(right - width, innerWidth - width - GAP))}px`;
}

page.choices.addEventListener("toggle", ({ newState }) => {
  if (newState === "closed") opener?.setAttribute("aria-expanded", "false");
});

page.choices.addEventListener("click", ({ target }) => {
  const choice = target.closest("button")?.dataset.choice;
  if (!choice) return;
  page.choices.hidePopover();
  chosen(choice);
});

const STEPS = { ArrowDown: 1, ArrowUp: -1 };

page.choices.addEventListener("keydown", (event) => {
  const place = items.indexOf(document.activeElement);
  if (event.key === "Tab") page.choices.hidePopover();
  const ends = { Home: 0, End: items.length - 1 };
  const to = event.key in STEPS ? (place + STEPS[event.key] + items.length) % items.length : ends[event.key];
  if (to === undefined) return;
  event.preventDefault();
  items[to].focus();
});
