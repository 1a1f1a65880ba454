// The timeline of a video: a slider, marks of what is known on which frame, playing.

import { framesOf, hasPrompts } from "./state.js";

const RATE = 12; // frames a second, where the video does not say
const AHEAD = 4; // frames that are fetched before they are played
const [ROW, GAP, ROWS] = [5, 2, 8]; // CSS pixels of an object's line of marks, and how many lines at most

export class Timeline {
  playing = false;
  #parts;
  #app;
  #frames;

  /** parts: {section, slider, marks, number, play}, elements of the page. */
  constructor(parts, app, frames) {
    this.#parts = parts;
    this.#app = app;
    this.#frames = frames;
    parts.slider.addEventListener("input", () => {
      this.stop();
      app.go(Number(parts.slider.value));
    });
    parts.play.addEventListener("click", () => this.toggle());
    new ResizeObserver(() => this.render()).observe(parts.marks);
  }

  render() {
    const { section, slider, number, play } = this.#parts;
    const { medium, frame, document } = this.#app;
    section.hidden = !(medium?.frames > 1);
    if (section.hidden) return this.stop();
    slider.max = medium.frames - 1;
    slider.value = frame;
    const here = document.objects.filter((object) => object.prompts[frame]).map(({ name }) => name);
    slider.ariaValueText = `Frame ${frame + 1} of ${medium.frames}${here.length ? `, prompts for ${here.join(", ")}` : ""}`;
    number.textContent = `${frame + 1} / ${medium.frames}`;
    play.ariaPressed = String(this.playing);
    this.#drawMarks(document.objects.filter((object) => framesOf(object).length > 0).slice(-ROWS), medium.frames);
  }

  // ---- marks: a line where an object has masks, a dot where it has prompts

  #drawMarks(objects, frames) {
    const canvas = this.#parts.marks;
    const density = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = Math.max(1, objects.length) * (ROW + GAP) + GAP;
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.scale(density, density);
    // A frame's marks are above the slider's thumb: the first at the left end, the last at the right.
    const wide = (width - 2 * ROW) / (frames - 1);
    const middle = (frame) => ROW + frame * wide;
    objects.forEach((object, row) => {
      const y = GAP + row * (ROW + GAP) + ROW / 2;
      context.fillStyle = object.color;
      context.globalAlpha = 0.6;
      for (const frame of framesOf(object)) context.fillRect(middle(frame) - wide / 2, y - 1.5, Math.max(wide, 1), 3);
      context.globalAlpha = 1;
      for (const frame of Object.keys(object.prompts).map(Number)) {
        context.beginPath();
        context.arc(middle(frame), y, ROW / 2 + 1, 0, 2 * Math.PI);
        context.fill();
      }
    });
  }

  // ---- going about

  step(by) {
    this.stop();
    this.#app.go(this.#app.frame + by);
  }

  /** To the next frame with prompts in a direction (1 or -1). */
  toPrompts(direction) {
    this.stop();
    const { document, frame } = this.#app;
    const frames = document.objects.filter(hasPrompts).flatMap(({ prompts }) => Object.keys(prompts).map(Number));
    const beyond = frames.filter((other) => Math.sign(other - frame) === direction).map((other) => other * direction);
    if (beyond.length === 0) return this.#app.say("No other frame with prompts in this direction.");
    this.#app.go(Math.min(...beyond) * direction);
  }

  toggle() {
    if (this.playing) this.stop();
    else this.#play();
  }

  stop() {
    if (!this.playing) return;
    this.playing = false;
    this.render();
  }

  async #play() {
    const { medium } = this.#app;
    if (!(medium?.frames > 1)) return;
    this.playing = true;
    const duration = 1000 / (medium.rate ?? RATE);
    for (let due = performance.now(); this.playing && this.#app.medium === medium; ) {
      const frame = (this.#app.frame + 1) % medium.frames;
      for (let next = 1; next <= AHEAD; next++) this.#frames.get(medium, (frame + next) % medium.frames).catch(() => {});
      const arrived = await this.#frames.get(medium, frame).catch(() => null);
      due = Math.max(due + duration, performance.now());
      await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
      if (!arrived) this.stop();
      if (this.playing) this.#app.go(frame);
    }
    this.stop();
  }
}
