// What is open: the media, what was done to each, and the frame that is seen. Whoever shows some of it listens.

import * as server from "./server.js";
import * as documents from "./state.js";
import * as storage from "./storage.js";

const SAVED_AFTER = 150; // milliseconds without another change,
const SAVED_AT_LATEST = 2000; // or from the first change on, while a clip plays or is tracked

export class App {
  media = new Map(); // by id: {medium, history, frame, file}
  model = "";
  limits = {};
  tool = "add"; // what a plain click does: "add", "remove" or "move", with a drag
  dropped = false; // the server no longer has the medium
  #current = null;
  #listeners = new Set();
  #saving = 0;
  #unsaved = null; // since when, as performance.now() tells it

  constructor({ say, complain }) {
    this.say = say;
    this.complain = complain;
  }

  get medium() {
    return this.#current?.medium ?? null;
  }

  get frame() {
    return this.#current?.frame ?? 0;
  }

  get document() {
    return this.#current?.history.present ?? documents.emptyDocument;
  }

  get selected() {
    return documents.selectedObject(this.document);
  }

  get canUndo() {
    return (this.#current?.history.past.length ?? 0) > 0;
  }

  get canRedo() {
    return (this.#current?.history.future.length ?? 0) > 0;
  }

  listen(listener) {
    this.#listeners.add(listener);
  }

  /** Tell all who listen, and save in a moment. */
  changed() {
    for (const listener of this.#listeners) listener();
    clearTimeout(this.#saving);
    this.#unsaved ??= performance.now();
    const latest = this.#unsaved + SAVED_AT_LATEST - performance.now();
    this.#saving = setTimeout(() => this.#save(), Math.min(SAVED_AFTER, latest));
  }

  // ---- edits

  edit(change) {
    if (!this.#current) return;
    this.#current.history = documents.commit(this.#current.history, change(this.document));
    this.changed();
  }

  /** A change that is no step of undoing. */
  amend(change) {
    if (!this.#current) return;
    this.#current.history = documents.amend(this.#current.history, change(this.document));
    this.changed();
  }

  undo() {
    if (!this.canUndo) return this.say("Nothing to undo.");
    const { frame } = this.document;
    this.#current.history = documents.undo(this.#current.history);
    this.say("Undone.");
    this.go(frame);
  }

  redo() {
    if (!this.canRedo) return this.say("Nothing to redo.");
    this.#current.history = documents.redo(this.#current.history);
    this.say("Done again.");
    this.go(this.document.frame);
  }

  /** Show a frame. */
  go(frame) {
    if (!this.#current) return;
    this.#current.frame = Math.min(Math.max(frame, 0), this.medium.frames - 1);
    this.changed();
  }

  // ---- media

  /** What was open before a reload, or else what the server was started with. */
  async begin() {
    const { model, opened, maximum_bytes: bytes, maximum_pixels: pixels } = await server.state();
    Object.assign(this, { model, limits: { bytes, pixels } });
    storage.forgetOld();
    for (const medium of opened) this.media.set(medium.id, fresh(medium));
    let latest = null;
    for (const work of await storage.savedWork()) latest = await this.#takeUp(work);
    this.#open(latest ?? [...this.media.values()][0] ?? null);
  }

  /** Work of before. A server that was started anew has the same medium under another name. */
  async #takeUp({ medium, history, frame }) {
    const file = await storage.savedFile(medium.id);
    const again = !file && !this.media.has(medium.id) && this.#untouchedLike(medium);
    if (again) storage.forget(medium.id);
    const work = { medium: again ? again.medium : medium, history, frame, file };
    this.media.set(work.medium.id, work);
    return work;
  }

  #untouchedLike(medium) {
    return [...this.media.values()].find(({ medium: other, history: { past } }) =>
      past.length === 0 && alike(other, medium) && other.name === medium.name);
  }

  /** Send a file to the server and open it. */
  async add(file) {
    if (!this.#fits(file)) return;
    this.say(`Sending ${file.name} …`);
    try {
      const medium = await server.upload(file);
      this.media.set(medium.id, { ...fresh(medium), file });
      storage.saveFile(medium.id, file);
      this.#open(this.media.get(medium.id));
    } catch (error) {
      this.complain(error);
    }
  }

  choose(id) {
    this.#open(this.media.get(id) ?? null);
  }

  #open(work) {
    if (this.#unsaved !== null) this.#save();
    this.#current = work;
    this.dropped = false;
    if (work) this.say(described(work.medium));
    this.changed();
    if (work) this.#ask(work.medium);
  }

  async #ask({ id }) {
    try {
      await server.medium(id);
    } catch (error) {
      this.refused(error);
    }
  }

  /** Something was refused; if because the medium is gone, it can be sent again. */
  refused(error) {
    if (error.name === "AbortError") return;
    this.dropped = Boolean(error.dropped && this.medium);
    if (this.dropped) this.changed();
    else this.complain(error);
  }

  /** Whether the file of the medium is at hand, without asking for it. */
  get hasFile() {
    return Boolean(this.#current?.file);
  }

  /** Send the medium again; what was done to it stays. file: the one that was sent before, if none. */
  async sendAgain(file = this.#current.file) {
    const work = this.#current;
    if (!this.#fits(file)) return;
    try {
      const medium = await server.upload(file);
      if (!alike(medium, work.medium)) {
        throw new Error(`${file.name} is not the same: ${size(work.medium)} expected, ${size(medium)} chosen.`);
      }
      const old = work.medium.id;
      Object.assign(work, { medium, file });
      this.media.delete(old);
      this.media.set(medium.id, work);
      storage.forget(old);
      storage.saveFile(medium.id, file);
      this.#open(work);
    } catch (error) {
      this.complain(error);
    }
  }

  #fits(file) {
    const { bytes } = this.limits;
    if (!(bytes && file.size > bytes)) return true;
    this.complain(new Error(`${file.name} has ${megabytes(file.size)} MB; at most ${megabytes(bytes)} MB can be sent.`));
    return false;
  }

  #save() {
    this.#unsaved = null;
    if (!this.#current) return;
    const { medium, history, frame } = this.#current;
    storage.saveWork(medium.id, { medium, history, frame });
  }
}

const fresh = (medium) => ({ medium, history: documents.begin(), frame: 0, file: null });

const alike = (one, other) =>
  one.width === other.width && one.height === other.height && one.frames === other.frames;

const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(1);

const size = ({ width, height, frames }) => `${width} × ${height}${frames > 1 ? `, ${frames} frames` : ""}`;

const described = (medium) => `${medium.name}, ${size(medium)} is open.`;
