// Clicks, boxes and hovering become questions to the model. One question is on its way at a time, and the next one is
// chosen when it is back: first what the frame that is seen shows without an answer, then what a click would take.

import * as server from "./server.js";
import { decode, contains } from "./masks.js";
import { maskOn, prompt, takenCandidate, withBox, withClick } from "./state.js";

const SLOW = 500; // milliseconds after which it is said that the model is still at work
const RESTING = 50; // milliseconds that the pointer rests before the model is asked what a click would take

export class Asking {
  hover = null; // {point, label, frame, prompts}: what a click there would take
  waiting = null; // {since, prompts}: a click whose mask is not yet drawn
  #app;
  #redraw;
  #timer = 0;
  #running = null; // {prompts, controller}
  #refused = new WeakSet();

  constructor(app, redraw) {
    this.#app = app;
    this.#redraw = redraw;
  }

  // ---- what the user does

  /** The pointer is at a point of the picture, or (null) nowhere. */
  point(point, label) {
    clearTimeout(this.#timer);
    if (this.hover && !(point && this.hover.label === label && this.#insideHover(point))) this.forgetHover();
    if (!point || !this.#app.medium || this.#app.dropped) return;
    this.#timer = setTimeout(() => {
      const { frame, selected } = this.#app;
      this.hover = { point, label, frame, prompts: withClick(selected, frame, point, label) };
      this.answer();
    }, RESTING);
  }

  forgetHover() {
    clearTimeout(this.#timer);
    this.hover = null;
    this.#redraw();
  }

  #insideHover(point) {
    const mask = this.hoverMask;
    return mask && contains(mask, point);
  }

  get hoverMask() {
    const { hover } = this;
    if (!hover?.prompts.answer || hover.frame !== this.#app.frame) return null;
    return hover.prompts.answer.masks[takenCandidate(hover.prompts)].mask;
  }

  /** since: when the pointer was released, as performance.now() tells it. */
  click(point, label, since) {
    const { frame, selected } = this.#app;
    const { hover } = this;
    const asked = hover && hover.frame === frame && hover.label === label && String(hover.point) === String(point);
    this.#prompt(asked ? hover.prompts : withClick(selected, frame, point, label), since);
  }

  box(box, since) {
    const { frame, selected } = this.#app;
    this.#prompt(withBox(selected, frame, box), since);
  }

  #prompt(prompts, since) {
    this.forgetHover();
    this.waiting = { since, prompts };
    if (this.#running && this.#running.prompts !== prompts) this.#running.controller.abort();
    this.#app.edit((document) => prompt(document, this.#app.frame, prompts));
    if (prompts.answer) this.#announce(prompts);
  }

  // ---- what the model is asked

  /** Ask until nothing that is seen lacks its answer. */
  async answer() {
    if (this.#running) return;
    for (let question = this.#next(); question; question = this.#next()) await this.#ask(question);
  }

  /** Ask again what was refused. */
  retry() {
    this.#refused = new WeakSet();
    this.answer();
  }

  #next() {
    const { medium, frame, document, selected, dropped } = this.#app;
    if (!medium || dropped) return null;
    const open = (prompts) => prompts && !prompts.answer && !this.#refused.has(prompts);
    const objects = [...(selected ? [selected] : []), ...document.objects.filter(({ visible }) => visible)];
    const object = objects.find((object) => !maskOn(object, frame) && open(object.prompts[frame]));
    const prompts = object?.prompts[frame] ?? (open(this.hover?.prompts) ? this.hover.prompts : null);
    return prompts && { medium, frame, prompts };
  }

  async #ask({ medium, frame, prompts }) {
    const controller = new AbortController();
    this.#running = { prompts, controller };
    const { points, labels, box, previous } = prompts;
    const slow = setTimeout(() => prompts !== this.hover?.prompts && this.#app.say("Looking …"), SLOW);
    try {
      prompts.answer = await server.predict(medium.id, { frame, points, labels, box, previous }, controller.signal);
      if (prompts === this.hover?.prompts) this.#redraw();
      else this.#app.changed();
      this.#announce(prompts);
    } catch (error) {
      if (error.name !== "AbortError") this.#refused.add(prompts);
      this.#app.refused(error);
    } finally {
      clearTimeout(slow);
      this.#running = null;
    }
  }

  #announce(prompts) {
    const { selected, frame } = this.#app;
    if (selected?.prompts[frame] === prompts) this.#app.say(`${selected.name}: ${measured(maskOn(selected, frame))}.`);
  }
}

/** "12 % of the picture, score 0.93" */
export function measured({ mask, score }) {
  const { area } = decode(mask);
  return `${area === 0 ? "nothing" : `${percent(area)} of the picture`}, score ${score.toFixed(2)}`;
}

export const percent = (share) => `${share < 0.0995 ? (share * 100).toFixed(1) : Math.round(share * 100)} %`;
