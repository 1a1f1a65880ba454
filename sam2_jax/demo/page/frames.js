// The pixels of frames, kept while there is room for them.

import * as server from "./server.js";

const ROOM = 256 * 2 ** 20; // bytes

export class Frames {
  #kept = new Map(); // by medium and frame, the latest used last: a promise of an ImageBitmap

  get(medium, frame) {
    const key = `${medium.id}/${frame}`;
    const kept = this.#kept.get(key) ?? server.frame(medium.id, frame);
    this.#kept.delete(key);
    this.#kept.set(key, kept);
    kept.catch(() => this.#kept.delete(key));
    const most = Math.max(4, Math.floor(ROOM / (medium.width * medium.height * 4)));
    for (const oldest of [...this.#kept.keys()].slice(0, -most)) this.#kept.delete(oldest);
    return kept;
  }
}
