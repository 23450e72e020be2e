// A list that stays at its end while it grows, unless the user has scrolled away from there.

const NEAR = 32; // pixels from the end that count as the end

export class Scroll {
  #box;
  #newest;
  #onSeen;
  #pinned = true;
  #inView = false;

  /** `newest` is the button that leads to the end. `onSeen` is called whenever the end is before the user's eyes. */
  constructor(box, newest, onSeen) {
    this.#box = box;
    this.#newest = newest;
    this.#onSeen = onSeen;
    box.addEventListener("scroll", () => this.#look(), { passive: true });
    newest.addEventListener("click", () => {
      this.toEnd();
      box.focus();
    });
    new ResizeObserver(() => this.follow()).observe(box);
    const view = new IntersectionObserver(([entry]) => {
      this.#inView = entry.isIntersecting;
      this.#look();
    }, { threshold: 0.5 });
    view.observe(box);
    document.addEventListener("visibilitychange", () => this.#look());
  }

  /** Whether the end is before the user's eyes. */
  get seen() {
    return this.#pinned && this.#inView && document.visibilityState === "visible";
  }

  toEnd() {
    this.#pinned = true;
    this.follow();
  }

  follow() {
    if (this.#pinned) this.#box.scrollTop = this.#box.scrollHeight;
    this.#look();
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    this.#pinned = scrollHeight - scrollTop - clientHeight < NEAR;
    this.#newest.hidden = this.#pinned;
    if (this.seen) this.#onSeen();
  }
}
