// The list of objects, and the candidates of the selected one.

import { contains, decode } from "./masks.js";
import { maskOn, takenCandidate } from "./state.js";
import { measured, percent } from "./asking.js";

const THUMBNAIL = 56; // pixels of the longer side

/** The list. does: an `Editing`. */
export class ObjectList {
  #list;
  #template;
  #does;
  #selected = null;
  #rows = new Map(); // by an object's id, kept so that the focus is

  constructor(list, template, does) {
    this.#list = list;
    this.#template = template;
    this.#does = does;
  }

  render(document, frame) {
    for (const [id, row] of this.#rows) {
      if (document.objects.some((object) => object.id === id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    document.objects.forEach((object, place) => {
      const row = this.#row(object.id);
      this.#fill(row, object, frame, object.id === document.selected);
      if (this.#list.children[place] !== row) this.#list.insertBefore(row, this.#list.children[place] ?? null);
    });
    if (this.#selected !== document.selected) this.#rows.get(document.selected)?.scrollIntoView({ block: "nearest" });
    this.#selected = document.selected;
  }

  #row(id) {
    if (this.#rows.has(id)) return this.#rows.get(id);
    const row = this.#template.content.firstElementChild.cloneNode(true);
    const part = (name) => row.querySelector(`.${name}`);
    part("select").addEventListener("change", () => this.#does.select(id));
    part("name").addEventListener("change", ({ target }) => this.#does.rename(id, target.value.trim()));
    part("name").addEventListener("keydown", ({ key, target }) => key === "Enter" && target.blur());
    part("show").addEventListener("click", () => this.#does.toggle(id));
    part("remove").addEventListener("click", () => this.#does.remove(id));
    row.addEventListener("click", ({ target }) => target.closest("button, input") ?? this.#does.select(id));
    this.#rows.set(id, row);
    return row;
  }

  #fill(row, { name, color, visible, ...object }, frame, selected) {
    const part = (name) => row.querySelector(`.${name}`);
    row.style.setProperty("--color", color);
    row.classList.toggle("selected", selected);
    row.classList.toggle("hidden-object", !visible);
    part("select").checked = selected;
    part("select").ariaLabel = `Select ${name}`;
    if (part("name") !== document.activeElement) part("name").value = name;
    part("name").ariaLabel = `Name of ${name}`;
    part("show").ariaPressed = String(visible);
    part("show").ariaLabel = `Show ${name}`;
    part("remove").ariaLabel = `Delete ${name}`;
    part("measure").textContent = measure(maskOn(object, frame), object.prompts[frame]);
  }
}

function measure(found, prompts) {
  if (found) return `${percent(decode(found.mask).area)} · ${found.score.toFixed(2)}`;
  return prompts ? "…" : "not on this frame";
}

/** The buttons of the candidates, with pictures of their masks; nothing where there is no choice. */
export class Candidates {
  #group;
  #template;
  #choose;
  #shown = null;

  constructor(group, template, choose) {
    this.#group = group;
    this.#template = template;
    this.#choose = choose;
  }

  render(object, frame) {
    const prompts = object && !object.masks[frame] ? object.prompts[frame] : null;
    const masks = prompts?.answer?.masks ?? [];
    this.#group.hidden = masks.length < 2;
    if (this.#group.hidden) return;
    if (this.#shown !== masks) {
      this.#shown = masks;
      const bounds = boundsOf(masks.map(({ mask }) => mask));
      this.#group.replaceChildren(...masks.map((found, index) => this.#button(found, index, object.color, bounds)));
    }
    [...this.#group.children].forEach((button, index) => {
      button.ariaPressed = String(index === takenCandidate(prompts));
    });
  }

  #button({ mask, score }, index, color, bounds) {
    const button = this.#template.content.firstElementChild.cloneNode(true);
    button.ariaLabel = `Candidate ${index + 1}, ${measured({ mask, score })}`;
    button.querySelector(".number").textContent = index + 1;
    button.querySelector(".score").textContent = score.toFixed(2);
    drawThumbnail(button.querySelector("canvas"), mask, color, bounds);
    button.addEventListener("click", () => this.#choose(index));
    return button;
  }
}

/** Where any of the masks is, with some room around: [x, y, width, height], square where the picture allows it. */
function boundsOf(masks) {
  const [height, width] = masks[0].size;
  const shapes = masks.map(decode).filter(({ area }) => area > 0);
  if (shapes.length === 0) return [0, 0, width, height];
  const x0 = Math.min(...shapes.map(({ x }) => x));
  const y0 = Math.min(...shapes.map(({ y }) => y));
  const x1 = Math.max(...shapes.map((shape) => shape.x + shape.width * shape.step));
  const y1 = Math.max(...shapes.map((shape) => shape.y + shape.height * shape.step));
  const side = 1.2 * Math.max(x1 - x0, y1 - y0, 24);
  const start = (from, to, size) => Math.max(0, Math.min((from + to - side) / 2, size - side));
  return [start(x0, x1, width), start(y0, y1, height), Math.min(side, width), Math.min(side, height)];
}

/** The shape alone, in so few pixels that looking each of them up is quick. */
function drawThumbnail(canvas, mask, color, [left, top, width, height]) {
  const scale = THUMBNAIL / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = color;
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      if (contains(mask, [left + (x + 0.5) / scale, top + (y + 0.5) / scale])) context.fillRect(x, y, 1, 1);
    }
  }
}
