// What takes a while: all masks of a frame, tracking, files of results. One at a time, with progress, and each can be
// stopped; what has come by then stays.

import * as server from "./server.js";
import { framesOf, maskOn, withFound, withTracked } from "./state.js";

const POINTS_PER_SIDE = 16;

export class Jobs {
  running = null; // {name, medium, progress from 0 to 1 or null, stop}
  #app;

  constructor(app) {
    this.#app = app;
    app.listen(() => this.running && this.running.medium !== app.medium && this.stop());
  }

  everything() {
    return this.#run("Looking for everything", async (signal, progress) => {
      const { medium, frame } = this.#app;
      const options = { frame, points_per_side: POINTS_PER_SIDE };
      for await (const line of server.everything(medium.id, options, signal)) {
        signal.throwIfAborted();
        if (line.masks) this.#app.edit((document) => withFound(document, frame, line.masks));
        else progress(line.progress);
      }
      const count = this.#app.document.objects.filter((object) => object.found).length;
      this.#app.say(`Everything: ${counted(count, "object")} found.`);
    });
  }

  /** direction: "forward" or "backward" from the prompts, or "both". */
  track(direction) {
    const objects = toTrack(this.#app.document);
    if (objects.length === 0) return this.#app.say("Nothing to track yet: click on an object first.");
    return this.#run("Tracking", async (signal, progress) => {
      const { medium, frame } = this.#app;
      this.#app.edit((document) => ({ ...document, frame }));
      let frames = 0;
      let following = frame;
      // Sent as 1, 2, ...: the server's numbers end at 255, an object's own may not.
      const ids = objects.map(({ id }) => id);
      const numbered = objects.map(({ prompts }, index) => ({ id: index + 1, prompts }));
      for await (const line of server.track(medium.id, { objects: numbered, direction }, signal)) {
        signal.throwIfAborted();
        const found = line.objects.map((each) => ({ ...each, id: ids[each.id - 1] }));
        this.#app.amend((document) => withTracked(document, line.frame, found));
        progress(line.done / line.of);
        frames = line.done;
        // The picture follows, unless somebody looks elsewhere.
        if (this.#app.frame === following) this.#app.go((following = line.frame));
      }
      this.#app.say(`${counted(objects.length, "object")} tracked on ${counted(frames, "frame")}.`);
    });
  }

  export(format) {
    const objects = toExport(this.#app.document);
    if (objects.length === 0) return this.#app.say("Nothing to export yet: no object is shown that has a mask.");
    return this.#run("Writing the file", async (signal) => {
      const { blob, name } = await server.exported(this.#app.medium.id, { format, objects }, signal);
      download(blob, name);
      this.#app.say(`${name} is written.`);
    });
  }

  stop() {
    this.running?.stop();
  }

  async #run(name, work) {
    if (this.running) return this.#app.say(`${this.running.name}: stop this first.`);
    const controller = new AbortController();
    this.running = { name, medium: this.#app.medium, progress: null, stop: () => controller.abort() };
    this.#app.say(`${name} …`);
    this.#app.changed();
    try {
      await work(controller.signal, (progress) => {
        this.running.progress = progress;
        this.#app.changed();
      });
    } catch (error) {
      if (error.name === "AbortError") this.#app.say("Stopped. What was found by then is kept.");
      else this.#app.refused(error);
    } finally {
      this.running = null;
      this.#app.changed();
    }
  }
}

const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Objects with what they are to be tracked by: all prompts, or else the first mask that was found. */
function toTrack(document) {
  return document.objects
    .filter(({ visible }) => visible)
    .map((object) => ({ id: object.id, prompts: trackingPrompts(object) }))
    .filter(({ prompts }) => prompts.length > 0);
}

function trackingPrompts(object) {
  const prompts = Object.entries(object.prompts).map(([frame, { points, labels, box, chosen, answer }]) => {
    const byHand = chosen !== null && chosen !== answer.best;
    return { frame: Number(frame), ...(byHand ? { mask: answer.masks[chosen].mask } : { points, labels, box }) };
  });
  if (prompts.length > 0 || !object.found) return prompts;
  const [frame] = framesOf(object);
  return [{ frame, mask: object.masks[frame].mask }];
}

/** The objects that are shown, with all their masks and scores by frame. */
function toExport(document) {
  return document.objects
    .filter(({ visible }) => visible)
    .map((object) => {
      const { id, name, color } = object;
      const found = framesOf(object).map((frame) => [frame, maskOn(object, frame)]).filter(([, mask]) => mask);
      const masks = Object.fromEntries(found.map(([frame, { mask }]) => [frame, mask]));
      const scores = Object.fromEntries(found.map(([frame, { score }]) => [frame, score]));
      return { id, name, color, masks, scores };
    })
    .filter(({ masks }) => Object.keys(masks).length > 0);
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
