// A list that stays at its end while it grows, unless the user has scrolled away from there.

const NEAR = 32; // pixels from the end that count as the end

export class Scroll {
  #box;
  #newest;
  #onSeen;
  #pinned = true;
  #top = 0;
  #inView = false;
  #frame = 0;

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
    new ResizeObserver(() => this.#settle()).observe(box);
    const view = new IntersectionObserver(([entry]) => {
      this.#inView = entry.isIntersecting;
      this.#look();
    }, { threshold: 0.5 });
    view.observe(box);
    document.addEventListener("visibilitychange", () => this.#settle());
  }

  /** Whether the end is before the user's eyes. */
  get seen() {
    return this.#pinned && this.#inView && document.visibilityState === "visible";
  }

  toEnd() {
    this.#pinned = true;
    this.#settle();
  }

  /** Follows the end with the next frame, however much is added until then. */
  follow() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#settle();
    });
  }

  #settle() {
    if (this.#pinned) this.#box.scrollTop = this.#box.scrollHeight;
    this.#look();
  }

  /** Only the user leaves the end, by scrolling up. What is added moves the end away until the next frame. */
  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    const near = scrollHeight - scrollTop - clientHeight < NEAR;
    if (near) this.#pinned = true;
    else if (scrollTop < this.#top) this.#pinned = false;
    this.#top = scrollTop;
    this.#newest.hidden = this.#pinned;
    if (this.seen) this.#onSeen();
  }
}
