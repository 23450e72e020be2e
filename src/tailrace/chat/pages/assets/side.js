// The sessions on a narrow screen: a sheet over the page.

import { page } from "./page.js";

const behind = [page.chat, document.querySelector(".top")];

export function toggleSide(isOpen) {
  const wasOpen = page.side.classList.contains("open");
  page.side.classList.toggle("open", isOpen);
  page.menu.setAttribute("aria-expanded", String(isOpen));
  for (const element of behind) element.inert = isOpen;
  if (isOpen) page.leave.focus();
  else if (wasOpen && page.side.contains(document.activeElement)) page.menu.focus();
}

page.menu.addEventListener("click", () => toggleSide(true));
page.leave.addEventListener("click", () => toggleSide(false));
page.side.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !page.choices.matches(":popover-open")) toggleSide(false);
});
// The sheet is beside the conversation when the screen gets wide.
matchMedia("(min-width: 801px)").addEventListener("change", () => toggleSide(false));
