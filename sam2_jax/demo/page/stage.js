// The stage: the picture with masks, prompts, a box being drawn and the keyboard's cursor, painted on one canvas.

import { decode, paint } from "./masks.js";
import { maskOn } from "./state.js";
import { View } from "./view.js";

const EDGE = 1.6; // CSS pixels of a mask's edge when the whole picture is seen
const POINT = 6; // CSS pixels of a point's radius
const HOVERING = 0.75; // opacity of what a click would take

export class Stage {
  view = new View();
  bitmap = null;
  shown = null; // {medium, frame} that the bitmap is of
  box = null; // [x0, y0, x1, y1] that is being drawn
  cursor = null; // [x, y], moved by keys
  onDrawn = () => {};
  #canvas;
  #app;
  #asking;
  #requested = false;

  constructor(canvas, app) {
    this.#canvas = canvas;
    this.#app = app;
    new ResizeObserver(([{ contentRect }]) => this.#resize(contentRect)).observe(canvas);
  }

  /** Who knows what a click would take. */
  follow(asking) {
    this.#asking = asking;
  }

  /** Another frame's pixels. */
  show(bitmap, medium, frame) {
    if (this.shown?.medium.id !== medium.id) {
      this.view.show(medium);
      this.cursor = null;
    }
    Object.assign(this, { bitmap, shown: { medium, frame } });
    this.redraw();
  }

  clear() {
    Object.assign(this, { bitmap: null, shown: null });
    this.redraw();
  }

  redraw = () => {
    if (this.#requested) return;
    this.#requested = true;
    requestAnimationFrame(() => {
      this.#requested = false;
      this.#draw();
      this.onDrawn();
    });
  };

  #resize({ width, height }) {
    const density = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * density);
    this.#canvas.height = Math.round(height * density);
    this.view.resize(width, height);
    this.#draw();
  }

  #draw() {
    const context = this.#canvas.getContext("2d");
    const density = window.devicePixelRatio || 1;
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    if (!this.bitmap) return;
    this.#drawPicture(context);
    const { frame } = this.shown;
    const { document, selected } = this.#app;
    for (const { mask, color } of masksOn(frame, document.objects, selected)) this.#drawMask(context, mask, color);
    context.globalAlpha = HOVERING;
    if (this.#asking.hoverMask) this.#drawMask(context, this.#asking.hoverMask, "#ffffff");
    context.globalAlpha = 1;
    if (selected?.visible) this.#drawPrompts(context, selected.prompts[frame], selected.color);
    if (this.box) drawBox(context, this.#boxOnStage(this.box), "#ffffff", [6, 4]);
    if (this.cursor) drawCursor(context, this.view.toStage(this.cursor));
  }

  #drawPicture(context) {
    const { x, y, scale } = this.view;
    const { width, height } = this.shown.medium;
    context.imageSmoothingEnabled = scale < 4;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.bitmap, x, y, width * scale, height * scale);
  }

  #drawMask(context, mask, color) {
    const { x, y, scale, fittingScale } = this.view;
    const painted = paint(mask, color, Math.max(1, Math.round(EDGE / fittingScale)));
    if (!painted.canvas) return;
    context.drawImage(
      painted.canvas, x + painted.x * scale, y + painted.y * scale, painted.width * scale, painted.height * scale,
    );
  }

  #drawPrompts(context, prompts, color) {
    if (!prompts) return;
    if (prompts.box) drawBox(context, this.#boxOnStage(prompts.box), color, []);
    prompts.points.forEach((point, index) =>
      drawPoint(context, this.view.toStage(middle(point)), color, prompts.labels[index] === 1));
  }

  #boxOnStage([x0, y0, x1, y1]) {
    return [...this.view.toStage([x0, y0]), ...this.view.toStage([x1, y1])];
  }
}

/** The masks of the objects that are shown: the small ones over the large ones, the selected one over all. */
function masksOn(frame, objects, selected) {
  const shown = objects
    .filter(({ visible }) => visible)
    .map((object) => ({ mask: maskOn(object, frame)?.mask, color: object.color, isSelected: object === selected }))
    .filter(({ mask }) => mask);
  return shown.sort((one, other) => one.isSelected - other.isSelected || decode(other.mask).area - decode(one.mask).area);
}

/** A point names a pixel; its mark lies on the middle of it. */
const middle = ([x, y]) => [x + 0.5, y + 0.5];

// What lies over a picture must be seen on any: a dark line beneath a light or a coloured one.

function drawBox(context, [x0, y0, x1, y1], color, dashes) {
  stroke(context, () => context.rect(x0, y0, x1 - x0, y1 - y0), color, 2, dashes);
}

function drawPoint(context, [x, y], color, on) {
  context.beginPath();
  context.arc(x, y, POINT + 2.5, 0, 2 * Math.PI);
  context.fillStyle = "rgb(0 0 0 / 0.55)";
  context.fill();
  context.beginPath();
  context.arc(x, y, POINT + 1.5, 0, 2 * Math.PI);
  context.fillStyle = "#fff";
  context.fill();
  context.beginPath();
  context.arc(x, y, POINT, 0, 2 * Math.PI);
  context.fillStyle = on ? color : "#1b1f27";
  context.fill();
  context.fillStyle = "#fff";
  context.fillRect(x - 3.5, y - 1, 7, 2);
  if (on) context.fillRect(x - 1, y - 3.5, 2, 7);
}

function drawCursor(context, [x, y]) {
  const arms = [[-14, 0, -4, 0], [4, 0, 14, 0], [0, -14, 0, -4], [0, 4, 0, 14]];
  stroke(context, () => arms.forEach(([x0, y0, x1, y1]) => {
    context.moveTo(x + x0, y + y0);
    context.lineTo(x + x1, y + y1);
  }), "#fff", 2, []);
}

function stroke(context, path, color, width, dashes) {
  context.beginPath();
  path();
  context.strokeStyle = "rgb(0 0 0 / 0.55)";
  context.lineWidth = width + 2;
  context.setLineDash([]);
  context.stroke();
  context.strokeStyle = color;
  context.lineWidth = width;
  context.setLineDash(dashes);
  context.stroke();
  context.setLineDash([]);
}
