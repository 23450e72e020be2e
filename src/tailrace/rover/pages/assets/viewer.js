// Shows a picture that can be enlarged and moved by pointer, fingers and keys, wherever it comes from.

const STEP = 1.5; // how much one press enlarges
const DEEPEST = 4; // the largest size: screen pixels for one of the picture
const MOVE = 0.15; // how far an arrow key moves, in parts of the box

export class Viewer {
  #box;
  #picture = null;
  #onScale;
  #scale = 1; // 1 fits the picture in its box
  #x = 0; // the picture's centre, in pixels from the box's centre
  #y = 0;
  #pointers = new Map();

  /** `onScale` is called with the size in percent of the picture's own, or null before there is one. */
  constructor(box, onScale) {
    this.#box = box;
    this.#onScale = onScale;
    new ResizeObserver(() => this.#place()).observe(box);
    box.addEventListener("keydown", (event) => this.#key(event));
    box.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    box.addEventListener("dblclick", (event) => this.zoom(STEP * STEP, this.#from(event)));
    box.addEventListener("pointerdown", (event) => this.#down(event));
    box.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      box.addEventListener(name, (event) => this.#pointers.delete(event.pointerId));
    }
  }

  /** Shows a picture that is decoded already. The place and size of the one before stay. */
  show(picture) {
    picture.draggable = false;
    const first = this.#picture === null;
    if (first) this.#box.append(picture);
    else this.#picture.replaceWith(picture);
    this.#picture = picture;
    if (first) this.#fill();
    this.#place();
  }

  /** Makes the picture larger by a factor, about a point that stays where it is. */
  zoom(factor, point = { x: 0, y: 0 }) {
    const before = this.#scale;
    this.#scale = Math.min(this.#most, Math.max(1, before * factor));
    const change = this.#scale / before;
    this.#x = point.x - (point.x - this.#x) * change;
    this.#y = point.y - (point.y - this.#y) * change;
    this.#place();
  }

  enlarge() {
    this.zoom(STEP);
  }

  reduce() {
    this.zoom(1 / STEP);
  }

  fit() {
    this.zoom(0);
  }

  /** Lets a picture that is much wider than its box begin at the height of the box, rather than as a strip. */
  #fill() {
    const filling = this.#height / (this.#picture.naturalHeight * this.#fitting);
    if (filling > 1.3) this.#scale = filling;
  }

  /** One pixel of the picture for one of the screen. */
  full() {
    this.zoom(1 / (this.#fitting * devicePixelRatio) / this.#scale);
  }

  // The box's size with its fractions: a rounded one leaves a line beside a picture of the same shape.

  get #width() {
    return this.#box.getBoundingClientRect().width;
  }

  get #height() {
    return this.#box.getBoundingClientRect().height;
  }

  /** CSS pixels for one of the picture if it fits. */
  get #fitting() {
    const { naturalWidth: width, naturalHeight: height } = this.#picture ?? {};
    return width ? Math.min(this.#width / width, this.#height / height) : 1;
  }

  get #most() {
    return Math.max(1, DEEPEST / devicePixelRatio / this.#fitting);
  }

  #place() {
    if (!this.#picture) return this.#onScale(null);
    this.#scale = Math.min(this.#scale, this.#most);
    const size = this.#fitting * this.#scale;
    const [width, height] = [this.#picture.naturalWidth * size, this.#picture.naturalHeight * size];
    const within = (value, most) => Math.max(-most, Math.min(most, value));
    this.#x = within(this.#x, Math.max(0, width - this.#width) / 2);
    this.#y = within(this.#y, Math.max(0, height - this.#height) / 2);
    const { style } = this.#picture;
    style.width = `${width}px`;
    style.height = `${height}px`;
    style.left = `${(this.#width - width) / 2 + this.#x}px`;
    style.top = `${(this.#height - height) / 2 + this.#y}px`;
    this.#box.classList.toggle("more-x", width > this.#width + 1);
    this.#box.classList.toggle("more-y", height > this.#height + 1);
    this.#onScale(Math.round(size * devicePixelRatio * 100));
  }

  /** Where an event is, in pixels from the box's centre. */
  #from({ clientX, clientY }) {
    const { left, top, width, height } = this.#box.getBoundingClientRect();
    return { x: clientX - left - width / 2, y: clientY - top - height / 2 };
  }

  #shift(x, y) {
    this.#x += x;
    this.#y += y;
    this.#place();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [width, height] = [this.#width * MOVE, this.#height * MOVE];
    const act = {
      "+": () => this.enlarge(),
      "=": () => this.enlarge(),
      "-": () => this.reduce(),
      0: () => this.fit(),
      1: () => this.full(),
    };
    const large = {
      ArrowLeft: () => this.#shift(width, 0),
      ArrowRight: () => this.#shift(-width, 0),
      ArrowUp: () => this.#shift(0, height),
      ArrowDown: () => this.#shift(0, -height),
    };
    const found = act[event.key] ?? (this.#scale > 1 ? large[event.key] : undefined);
    if (!found) return;
    event.preventDefault();
    found();
  }

  /** Enlarges with Ctrl or a pinch on a touch pad. The wheel alone scrolls the page, so that nobody is caught here. */
  #wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 200), this.#from(event));
  }

  #down(event) {
    if (event.button !== 0) return;
    this.#pointers.set(event.pointerId, this.#from(event));
    if (this.#scale > 1 || this.#pointers.size > 1) this.#box.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const now = this.#from(event);
    this.#pointers.set(event.pointerId, now);
    if (this.#pointers.size === 1) return this.#shift(now.x - before.x, now.y - before.y);
    const [other] = [...this.#pointers].find(([id]) => id !== event.pointerId).slice(1);
    const far = ({ x, y }) => Math.hypot(x - other.x, y - other.y);
    if (far(before) > 0) this.zoom(far(now) / far(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
  }
}
