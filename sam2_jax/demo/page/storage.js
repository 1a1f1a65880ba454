// Work that survives a reload: what was done to each medium, and its file, in the browser's own database (IndexedDB).
// Each tab has a shelf of its own. What no tab has touched for a day is thrown away. Where the browser keeps
// nothing (private windows), the page works all the same and forgets.

const DAY = 24 * 3600 * 1000;
const tab = (sessionStorage.tab ??= Math.random().toString(36).slice(2));
const shelf = IDBKeyRange.bound(`${tab}/`, `${tab}/\uffff`);

const database = new Promise((resolve) => {
  const opening = indexedDB.open("sam2-jax", 1);
  opening.onupgradeneeded = () => ["work", "files"].forEach((name) => opening.result.createObjectStore(name));
  opening.onsuccess = () => resolve(opening.result);
  opening.onerror = () => resolve(null);
});

async function inStore(name, use) {
  const opened = await database;
  if (!opened) return null;
  return new Promise((resolve) => {
    const request = use(opened.transaction(name, "readwrite").objectStore(name));
    request.onsuccess = () => resolve(request.result ?? null);
    request.onerror = (event) => { event.preventDefault(); resolve(null); };
  });
}

/** Keep what was done to a medium. */
export const saveWork = (id, work) => inStore("work", (store) => store.put({ ...work, saved: Date.now() }, `${tab}/${id}`));

/** Keep a medium's file, so that it can be sent again. */
export const saveFile = (id, file) => inStore("files", (store) => store.put({ file, saved: Date.now() }, `${tab}/${id}`));

/** What this tab has kept of its media, the latest last. */
export async function savedWork() {
  const works = (await inStore("work", (store) => store.getAll(shelf))) ?? [];
  return works.sort((a, b) => a.saved - b.saved);
}

export async function savedFile(id) {
  return (await inStore("files", (store) => store.get(`${tab}/${id}`)))?.file ?? null;
}

export const forget = (id) => ["work", "files"].forEach((name) => inStore(name, (store) => store.delete(`${tab}/${id}`)));

/** Throw away what is a day old, of this tab and of others. */
export async function forgetOld() {
  const opened = await database;
  for (const name of opened ? ["work", "files"] : []) {
    opened.transaction(name, "readwrite").objectStore(name).openCursor().onsuccess = ({ target: { result: cursor } }) => {
      if (!cursor) return;
      if (cursor.value.saved < Date.now() - DAY) cursor.delete();
      cursor.continue();
    };
  }
}
