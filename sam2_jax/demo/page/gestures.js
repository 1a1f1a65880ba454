// From pointers and keys on the canvas to what is meant: a click, a box, hovering, zooming, panning.
//
// mouse: click adds, right click or Alt+click removes, drag makes a box, wheel zooms, middle button or Space pans.
// touch: tap adds or removes (as the tool says), drag makes a box or pans, two fingers zoom and pan.
// keys:  arrows move a cursor, Enter adds, Shift or Alt with Enter removes, B begins and ends a box.

const DRAGGED = { mouse: 5, pen: 6, touch: 12 }; // CSS pixels from which on a click is a box
const STEP = 10; // CSS pixels that an arrow key moves the cursor
const [ADD, REMOVE] = [1, 0];

export class Gestures {
  #canvas;
  #stage;
  #means;
  #pointers = new Map(); // that are down, by id: [x, y]
  #press = null; // {kind: "click" | "box" | "pan" | "pinch", start, remove}
  #corner = null; // of a box made by keys
  #space = false;

  /** means: {click, box, point, select, usable, removes, moves}, called with places in the picture's pixels. */
  constructor(canvas, stage, means) {
    this.#canvas = canvas;
    this.#stage = stage;
    this.#means = means;
    const on = (type, listener, options) => canvas.addEventListener(type, listener, options);
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", (event) => this.#cancel(event));
    on("pointerleave", () => this.#means.point(null));
    on("contextmenu", (event) => event.preventDefault());
    on("wheel", (event) => this.#wheel(event), { passive: false });
    on("keydown", (event) => this.#key(event));
    on("blur", () => this.#leave());
  }

  /** Space is held: the next drag pans. */
  set space(held) {
    this.#space = held;
    this.#canvas.classList.toggle("pans", held);
  }

  get panning() {
    return this.#press?.kind === "pan";
  }

  // ---- pointers

  #down(event) {
    const place = this.#place(event);
    this.#pointers.set(event.pointerId, place);
    this.#canvas.setPointerCapture(event.pointerId);
    this.#setCursor(null);
    if (this.#pointers.size > 1) {
      this.#setBox(null);
      this.#begin({ kind: "pinch" });
    } else if (event.button === 1 || this.#space || this.#means.moves()) {
      event.preventDefault();
      this.#begin({ kind: "pan" });
    } else if (event.button === 0 || event.button === 2) {
      this.#press = { kind: "click", start: place, remove: event.button === 2 || event.altKey || this.#means.removes() };
    }
  }

  #move(event) {
    const place = this.#place(event);
    const before = this.#pointers.get(event.pointerId);
    if (!before) return this.#rest(event, place);
    const apart = this.#spread();
    this.#pointers.set(event.pointerId, place);
    const { kind, start } = this.#press ?? {};
    if (kind === "pan") this.#pan(before, place, 1);
    if (kind === "pinch") this.#pinch(before, place, apart);
    if (kind === "click" && distance(start, place) > DRAGGED[event.pointerType]) this.#begin({ kind: "box", start });
    if (this.#press?.kind === "box") this.#setBox(this.#boxOf(start, place));
  }

  /** What is no click: what a click would take is out of question. */
  #begin(press) {
    this.#press = press;
    this.#means.point(null);
  }

  #up(event) {
    const place = this.#place(event);
    const press = this.#press;
    this.#pointers.delete(event.pointerId);
    if (this.#pointers.size > 0) return;
    this.#press = null;
    this.#setBox(null);
    if (press?.kind === "click") this.#click(press, event);
    if (press?.kind === "box") this.#takeBox(this.#boxOf(press.start, place), event.timeStamp);
  }

  #cancel(event) {
    this.#pointers.delete(event.pointerId);
    this.#press = null;
    this.#setBox(null);
  }

  #click({ start, remove }, event) {
    const pixel = this.#pixel(start);
    if (!pixel || !this.#means.usable()) return;
    if (event.shiftKey) this.#means.select(pixel);
    else this.#means.click(pixel, remove ? REMOVE : ADD, event.timeStamp);
  }

  /** The pointer moves with no button down. A finger does not hover. */
  #rest(event, place) {
    if (event.pointerType === "touch" || this.#space || this.#means.moves()) return;
    this.#means.point(this.#pixel(place), event.altKey || this.#means.removes() ? REMOVE : ADD);
  }

  #pan([x0, y0], [x, y], share) {
    this.#stage.view.pan((x - x0) * share, (y - y0) * share);
    this.#stage.redraw();
  }

  /** Of two fingers each moves the middle by half of its way. */
  #pinch(before, place, apart) {
    this.#pan(before, place, 1 / this.#pointers.size);
    if (apart) this.#stage.view.zoom(this.#spread() / apart, this.#middle());
  }

  #spread() {
    const [one, other] = [...this.#pointers.values()];
    return other ? distance(one, other) : 0;
  }

  #middle() {
    const places = [...this.#pointers.values()];
    return [0, 1].map((axis) => places.reduce((sum, place) => sum + place[axis], 0) / places.length);
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 24 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.002; // pinching on a touchpad comes as small turns with Ctrl
    this.#stage.view.zoom(Math.exp(-event.deltaY * lines * speed), this.#place(event));
    this.#stage.redraw();
  }

  // ---- keys

  #key(event) {
    if (event.ctrlKey || event.metaKey || !this.#stage.shown) return;
    const keys = {
      ArrowLeft: () => this.#step([-1, 0], event),
      ArrowRight: () => this.#step([1, 0], event),
      ArrowUp: () => this.#step([0, -1], event),
      ArrowDown: () => this.#step([0, 1], event),
      Enter: () => this.#enter(event),
      b: () => this.#corner ? this.#endBox(event) : this.#beginBox(),
      s: () => this.#stage.cursor && this.#means.select(floor(this.#stage.cursor)),
      Escape: () => this.#leave(),
    };
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || (event.key === "Escape" && !this.#stage.cursor)) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  #step([dx, dy], event) {
    const { width, height } = this.#stage.shown.medium;
    const [x, y] = this.#stage.cursor ?? [width / 2, height / 2];
    const length = this.#stage.cursor ? (STEP * (event.shiftKey ? 5 : 1)) / this.#stage.view.scale : 0;
    this.#setCursor([clamp(x + dx * length, width), clamp(y + dy * length, height)]);
    this.#stage.view.reveal(this.#stage.cursor);
    if (this.#corner) this.#setBox(ordered(this.#corner, this.#stage.cursor));
    else if (this.#means.usable()) this.#means.point(floor(this.#stage.cursor), this.#means.removes() ? REMOVE : ADD, true);
  }

  #enter(event) {
    if (!this.#stage.cursor) return this.#step([0, 0], event);
    if (!this.#means.usable()) return;
    if (this.#corner) return this.#endBox(event);
    const remove = event.shiftKey || event.altKey || this.#means.removes();
    this.#means.click(floor(this.#stage.cursor), remove ? REMOVE : ADD, event.timeStamp);
  }

  #beginBox() {
    if (!this.#stage.cursor) this.#step([0, 0], {});
    this.#corner = this.#stage.cursor;
    this.#means.point(null);
    this.#means.say("The box begins here. Move, then press B or Enter.");
  }

  #endBox(event) {
    const box = ordered(this.#corner, this.#stage.cursor).map(Math.round);
    this.#corner = null;
    this.#setBox(null);
    this.#takeBox(box, event.timeStamp);
  }

  #leave() {
    this.#corner = null;
    this.#setBox(null);
    this.#setCursor(null);
    this.#means.point(null);
  }

  // ---- places

  #place(event) {
    const { left, top } = this.#canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  /** The pixel of the picture at a place of the stage; null outside. */
  #pixel(place) {
    if (!this.#stage.shown) return null;
    const { width, height } = this.#stage.shown.medium;
    const [x, y] = floor(this.#stage.view.toPicture(place));
    return x >= 0 && y >= 0 && x < width && y < height ? [x, y] : null;
  }

  /** Between two places of the stage, within the picture, in whole pixels. */
  #boxOf(start, end) {
    if (!this.#stage.shown) return null;
    const { width, height } = this.#stage.shown.medium;
    const [a, b] = [start, end].map((place) => {
      const [x, y] = this.#stage.view.toPicture(place);
      return [Math.round(clamp(x, width)), Math.round(clamp(y, height))];
    });
    return ordered(a, b);
  }

  #takeBox(box, since) {
    if (!box || !this.#means.usable()) return;
    const [x0, y0, x1, y1] = box;
    if (x1 > x0 && y1 > y0) this.#means.box(box, since);
  }

  #setBox(box) {
    this.#stage.box = box;
    this.#stage.redraw();
  }

  #setCursor(cursor) {
    this.#stage.cursor = cursor;
    this.#stage.redraw();
  }
}

const distance = ([x0, y0], [x1, y1]) => Math.hypot(x1 - x0, y1 - y0);

const floor = (point) => point.map(Math.floor);

const clamp = (value, size) => Math.min(Math.max(value, 0), size - 1e-3);

const ordered = ([x0, y0], [x1, y1]) => [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
