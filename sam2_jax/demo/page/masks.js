// Masks: from run lengths to pixels. A mask is COCO's compressed {size: [height, width], counts}; its runs go down the
// columns, first those that are off. What is worked out of a mask is kept as long as the mask itself.

const LARGEST = 4 * 2 ** 20; // pixels that are painted for one mask; larger pictures are thinned out evenly
const FILL = 0.42;

const decoded = new WeakMap();
const painted = new WeakMap();

/** Run lengths out of COCO's text: five bits a character, from the sixth on as differences to the run two before. */
export function runLengths(counts) {
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let shift = 0;
    let bits;
    do {
      bits = counts.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32);
    if (bits & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/**
 * A mask's pixels within its bounds: {on, x, y, width, height, step, area}. `on` is a Uint8Array, row by row, of every
 * step-th pixel; area is the share of the picture that the whole mask takes.
 */
export function decode(mask) {
  if (!decoded.has(mask)) decoded.set(mask, pixels(mask));
  return decoded.get(mask);
}

function pixels({ size: [rows, columns], counts }) {
  const spans = columnSpans(runLengths(counts), rows);
  if (spans.length === 0) return { on: new Uint8Array(0), x: 0, y: 0, width: 0, height: 0, step: 1, area: 0 };
  const step = Math.ceil(Math.sqrt((rows * columns) / LARGEST));
  let [left, top, right, bottom, count] = [columns, rows, 0, 0, 0];
  for (const [column, from, to] of spans) {
    left = Math.min(left, column);
    right = Math.max(right, column + 1);
    top = Math.min(top, from);
    bottom = Math.max(bottom, to);
    count += to - from;
  }
  [left, top] = [left - (left % step), top - (top % step)];
  const width = Math.ceil((right - left) / step);
  const height = Math.ceil((bottom - top) / step);
  const on = new Uint8Array(width * height);
  for (const [column, from, to] of spans) {
    if ((column - left) % step) continue;
    const start = Math.ceil((from - top) / step);
    const end = Math.ceil((to - top) / step);
    for (let at = start * width + (column - left) / step, row = start; row < end; row++, at += width) on[at] = 1;
  }
  return { on, x: left, y: top, width, height, step, area: count / (rows * columns) };
}

/** The runs that are on, cut at the columns' ends: [column, first row, row after the last]. */
function columnSpans(runs, rows) {
  const spans = [];
  let position = 0;
  runs.forEach((length, index) => {
    for (let left = index % 2 ? length : 0, at = position; left > 0; ) {
      const row = at % rows;
      const taken = Math.min(left, rows - row);
      spans.push([Math.floor(at / rows), row, row + taken]);
      at += taken;
      left -= taken;
    }
    position += length;
  });
  return spans;
}

/** Whether a pixel belongs to a mask. */
export function contains(mask, [x, y]) {
  const { on, x: left, y: top, width, height, step } = decode(mask);
  const column = Math.floor((x - left) / step);
  const row = Math.floor((y - top) / step);
  return column >= 0 && row >= 0 && column < width && row < height && on[row * width + column] === 1;
}

/**
 * A mask as a picture to draw: {canvas, x, y, width, height} in the picture's pixels, with an edge so many pixels wide.
 * It is painted once, and again only for another color or edge.
 */
export function paint(mask, color, edge = 1) {
  const kept = painted.get(mask);
  if (kept?.color === color && kept.edge === edge) return kept;
  const shape = decode(mask);
  const { x, y, step } = shape;
  const result = {
    canvas: canvasOf(shape, color, Math.max(1, Math.round(edge / step))),
    x, y, width: shape.width * step, height: shape.height * step, color, edge,
  };
  painted.set(mask, result);
  return result;
}

function canvasOf({ on, width, height }, color, edge) {
  if (on.length === 0) return null;
  const image = new ImageData(width, height);
  const values = new Uint32Array(image.data.buffer);
  const fill = littleEndian(color, FILL);
  const line = littleEndian(color, 1);
  const across = edge * width;
  for (let row = 0, at = 0; row < height; row++) {
    const inner = row >= edge && row < height - edge;
    for (let column = 0; column < width; column++, at++) {
      if (!on[at]) continue;
      const inside = inner && column >= edge && column < width - edge
        && on[at - edge] && on[at + edge] && on[at - across] && on[at + across];
      values[at] = inside ? fill : line;
    }
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** "#rrggbb" with an opacity, as a pixel of ImageData seen as one number. */
function littleEndian(color, opacity) {
  const value = parseInt(color.slice(1), 16);
  return ((Math.round(opacity * 255) << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}
