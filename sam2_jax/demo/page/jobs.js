// What takes a while: all masks of a frame, tracking, files of results. One at a time, with progress, and each can be
// stopped; what has come by then stays.

import * as server from "./server.js";
import { byHand, framesOf, maskOn, objectOf, takenCandidate, withFound, withTracked } from "./state.js";

const TRACKING = "Tracking";
const POINTS_PER_SIDE = 16;
const MOST_OBJECTS = 255; // the largest number of a label map, and so the server's; an object's own may be larger

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
    const objects = toTrack(this.#app.document, direction);
    if (objects.length === 0) return this.#app.say("Nothing to track yet: click on an object first.");
    return this.#run(TRACKING, async (signal, progress) => {
      const { medium, frame } = this.#app;
      this.#app.edit((document) => ({ ...document, frame }));
      let frames = 0;
      let following = frame;
      // Sent as 1, 2, ...: an object's own number may be too large for the server.
      const ids = objects.map(({ id }) => id);
      const begun = this.#app.document;
      const numbered = objects.map(({ prompts }, index) => ({ id: index + 1, prompts }));
      for await (const line of server.track(medium.id, { objects: numbered, direction }, signal)) {
        signal.throwIfAborted();
        const found = line.objects.map((each) => ({ ...each, id: ids[each.id - 1] }));
        const meant = (document) => stillMeant(begun, document, line.frame, found);
        this.#app.amend((document) => withTracked(document, line.frame, meant(document)));
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
    const without = unanswered(this.#app.document);
    return this.#run("Writing the file", async (signal) => {
      const { blob, name } = await server.exported(this.#app.medium.id, { format, objects }, signal);
      download(blob, name);
      const left = without.length ? `, without masks that are still to come of ${without.join(", ")}` : "";
      this.#app.say(`${name} is written${left}.`);
    });
  }

  stop() {
    this.running?.stop();
  }

  /** What comes from a track is of the document that it began with. */
  stopTracking() {
    if (this.running?.name === TRACKING) this.stop();
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

/** The objects that are shown, with what they are to be tracked by: all prompts, and a mask that was found. */
export function toTrack(document, direction) {
  return document.objects
    .filter(({ visible }) => visible)
    .map((object) => ({ id: object.id, prompts: trackingPrompts(object, direction) }))
    .filter(({ prompts }) => prompts.length > 0);
}

function trackingPrompts({ prompts, found }, direction) {
  const base = found && !prompts[found.frame] ? [found] : [];
  const frames = [...Object.keys(prompts).map(Number), ...base.map(({ frame }) => frame)];
  const first = direction === "backward" ? Math.max(...frames) : Math.min(...frames);
  const told = Object.entries(prompts).map(([key, of]) => {
    const { points, labels, box, answer, previous, refines } = of;
    const frame = Number(key);
    // Where tracking begins, clicks that changed a mask do not say by themselves what the object is.
    if (!byHand(of) && !(refines && frame === first)) return { frame, points, labels, box };
    if (answer) return { frame, mask: answer.masks[takenCandidate(of)].mask };
    return { frame, mask: previous, points, labels, box };
  });
  return [...base, ...told];
}

/** The objects that are shown, with all their masks and scores by frame. */
export function toExport(document) {
  const objects = document.objects
    .filter(({ visible }) => visible)
    .map((object) => {
      const { id, name, color } = object;
      const found = framesOf(object).map((frame) => [frame, maskOn(object, frame)]).filter(([, mask]) => mask);
      const masks = Object.fromEntries(found.map(([frame, { mask }]) => [frame, mask]));
      const scores = Object.fromEntries(found.map(([frame, { score }]) => [frame, score]));
      return { id, name, color, masks, scores };
    })
    .filter(({ masks }) => Object.keys(masks).length > 0);
  const fit = objects.every(({ id }) => id <= MOST_OBJECTS);
  return fit ? objects : objects.map((object, index) => ({ ...object, id: index + 1 }));
}

/** Of what tracking found on a frame, that of objects of which nothing else was said there since it began. */
export function stillMeant(begun, document, frame, found) {
  const said = (document, id) => objectOf(document, id)?.prompts[frame];
  return found.filter(({ id }) => said(document, id) === said(begun, id));
}

/** The names of shown objects that have prompts somewhere whose mask is not there yet. */
export function unanswered(document) {
  const waits = (object) => Object.keys(object.prompts).some((frame) => !maskOn(object, frame));
  return document.objects.filter((object) => object.visible && waits(object)).map(({ name }) => name);
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
