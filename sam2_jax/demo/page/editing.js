// What can be done to objects, each with a sentence about it.

import { measured } from "./asking.js";
import { contains, decode } from "./masks.js";
import * as documents from "./state.js";

export class Editing {
  #app;
  #asking;

  constructor(app, asking) {
    this.#app = app;
    this.#asking = asking;
  }

  select(id) {
    if (id === this.#app.document.selected) return;
    this.#asking.forgetHover();
    this.#app.amend((now) => documents.select(now, id));
    this.#app.say(`${this.#app.selected.name} is selected.`);
  }

  /** The object whose mask has a pixel; of several the smallest. */
  selectAt(pixel) {
    const area = (object) => decode(documents.maskOn(object, this.#app.frame).mask).area;
    const [smallest] = this.#objectsAt(pixel).sort((one, other) => area(one) - area(other));
    if (smallest) this.select(smallest.id);
    else this.#app.say("No object there.");
  }

  /** The object after the selected one (by 1), or before it (by -1). */
  selectNext(by) {
    const { objects, selected } = this.#app.document;
    if (objects.length === 0) return;
    const place = objects.findIndex(({ id }) => id === selected);
    this.select(objects[(place + by + objects.length) % objects.length].id);
  }

  newObject() {
    const { medium, selected } = this.#app;
    if (!medium) return;
    this.#asking.forgetHover();
    const isEmpty = selected && documents.framesOf(selected).length === 0;
    if (!isEmpty) this.#app.edit(documents.newObject);
    this.#app.say(`${this.#app.selected.name} is empty: click on the picture.`);
  }

  remove(id) {
    this.#asking.forgetHover();
    const name = this.#nameOf(id);
    this.#app.edit((now) => documents.remove(now, id));
    this.#app.say(`${name} is deleted.`);
  }

  toggle(id) {
    const { visible } = documents.objectOf(this.#app.document, id);
    this.#app.amend((now) => documents.show(now, id, !visible));
    this.#app.say(`${this.#nameOf(id)} is ${visible ? "hidden" : "shown"}.`);
  }

  rename(id, name) {
    if (name && name !== this.#nameOf(id)) this.#app.edit((now) => documents.rename(now, id, name));
    else this.#app.changed();
  }

  /** Take another candidate for the selected object's mask. */
  choose(candidate) {
    const { selected, frame } = this.#app;
    const found = !selected?.masks[frame] && selected?.prompts[frame]?.answer?.masks[candidate];
    if (!found) return;
    this.#asking.forgetHover();
    this.#app.edit((now) => documents.choose(now, frame, candidate));
    this.#app.say(`Candidate ${candidate + 1}: ${measured(found)}.`);
  }

  /** Where the keyboard's cursor is, and on what. */
  sayWhere([x, y]) {
    const names = this.#objectsAt([x, y]).map(({ name }) => name);
    this.#app.say(`At ${x}, ${y}${names.length ? `, on ${names.join(", ")}` : ""}.`);
  }

  #nameOf(id) {
    return documents.objectOf(this.#app.document, id).name;
  }

  #objectsAt(pixel) {
    return this.#app.document.objects.filter((object) => {
      const found = object.visible && documents.maskOn(object, this.#app.frame);
      return found && contains(found.mask, pixel);
    });
  }
}
