// How the picture lies on the stage: a scale and the place of its upper left corner, in CSS pixels of the stage.

const LARGEST_PIXEL = 48; // CSS pixels of one pixel of the picture
const MARGIN = 16;
const ALWAYS_SEEN = 48;

export class View {
  scale = 1;
  x = 0;
  y = 0;
  #picture = { width: 1, height: 1 };
  #stage = { width: 1, height: 1 };
  #fitted = true;

  /** The scale at which the whole picture is seen. Small pictures are enlarged. */
  get fittingScale() {
    const { width, height } = this.#stage;
    const scale = Math.min((width - 2 * MARGIN) / this.#picture.width, (height - 2 * MARGIN) / this.#picture.height);
    return Math.max(scale, 1e-3);
  }

  show(picture) {
    this.#picture = picture;
    this.fit();
  }

  /** The stage has another size: a picture that was seen whole still is, another keeps its middle. */
  resize(width, height) {
    const [dx, dy] = [(width - this.#stage.width) / 2, (height - this.#stage.height) / 2];
    this.#stage = { width, height };
    if (this.#fitted) this.fit();
    else this.pan(dx, dy);
  }

  fit() {
    this.scale = this.fittingScale;
    this.x = (this.#stage.width - this.#picture.width * this.scale) / 2;
    this.y = (this.#stage.height - this.#picture.height * this.scale) / 2;
    this.#fitted = true;
  }

  /** Zoom by a factor; what lies at a place of the stage stays there. */
  zoom(factor, [x, y] = [this.#stage.width / 2, this.#stage.height / 2]) {
    const smallest = this.fittingScale / 2;
    const scale = Math.min(Math.max(this.scale * factor, smallest), Math.max(LARGEST_PIXEL, smallest));
    this.x = x - (x - this.x) * (scale / this.scale);
    this.y = y - (y - this.y) * (scale / this.scale);
    this.scale = scale;
    this.pan(0, 0);
  }

  pan(dx, dy) {
    const within = (value, size, room) => Math.min(Math.max(value, ALWAYS_SEEN - size), room - ALWAYS_SEEN);
    this.x = within(this.x + dx, this.#picture.width * this.scale, this.#stage.width);
    this.y = within(this.y + dy, this.#picture.height * this.scale, this.#stage.height);
    this.#fitted = false;
  }

  /** So that a place of the picture is seen. */
  reveal(point) {
    const [x, y] = this.toStage(point);
    const missing = (value, room) => Math.max(MARGIN - value, 0) + Math.min(room - MARGIN - value, 0);
    const [dx, dy] = [missing(x, this.#stage.width), missing(y, this.#stage.height)];
    if (dx || dy) this.pan(dx, dy);
  }

  toPicture([x, y]) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  toStage([x, y]) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }
}
