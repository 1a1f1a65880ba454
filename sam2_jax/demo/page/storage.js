// Work that survives a reload: what was done to each medium, and its file, in the browser's own database (IndexedDB).
// Each tab has a shelf of its own. What no tab has touched for a day is thrown away. Where the browser keeps
// nothing (private windows), the page works all the same and forgets.

const DAY = 24 * 3600 * 1000;
const STORES = ["work", "files"];
const newName = () => Math.random().toString(36).slice(2);
const shelfOf = (tab) => IDBKeyRange.bound(`${tab}/`, `${tab}/\uffff`);

const database = new Promise((resolve) => {
  const opening = indexedDB.open("sam2-jax", 1);
  opening.onupgradeneeded = () => STORES.forEach((name) => opening.result.createObjectStore(name));
  opening.onsuccess = () => resolve(opening.result);
  opening.onerror = () => resolve(null);
});

/** This tab's name. One that was duplicated has its original's: it takes another, and a copy of what is there. */
const named = database.then(async (opened) => {
  const before = (sessionStorage.tab ??= newName());
  if (await claim(before)) return before;
  const tab = (sessionStorage.tab = newName());
  await claim(tab);
  await Promise.all(STORES.map((name) => new Promise((resolve) => {
    if (!opened) return resolve();
    const transaction = opened.transaction(name, "readwrite");
    transaction.oncomplete = transaction.onabort = resolve;
    const store = transaction.objectStore(name);
    store.openCursor(shelfOf(before)).onsuccess = ({ target: { result: cursor } }) => {
      if (!cursor) return;
      store.put(cursor.value, `${tab}${cursor.key.slice(before.length)}`);
      cursor.continue();
    };
  })));
  return tab;
});

/** Hold a name as long as the page is there; whether no other page does. Where no browser knows, none does. */
const claim = (name) => new Promise((resolve) => {
  if (!navigator.locks) return resolve(true);
  const held = (lock) => (resolve(Boolean(lock)), lock && new Promise(() => {}));
  navigator.locks.request(`sam2-jax/${name}`, { ifAvailable: true }, held).catch(() => resolve(true));
});

async function inStore(name, use) {
  const [opened, tab] = await Promise.all([database, named]);
  if (!opened) return null;
  return new Promise((resolve) => {
    const request = use(opened.transaction(name, "readwrite").objectStore(name), tab);
    request.onsuccess = () => resolve(request.result ?? null);
    request.onerror = (event) => { event.preventDefault(); resolve(null); };
  });
}

/** Keep what was done to a medium. */
export const saveWork = (id, work) => inStore("work", (store, tab) => store.put({ ...work, saved: Date.now() }, `${tab}/${id}`));

/** Keep a medium's file, so that it can be sent again. */
export const saveFile = (id, file) => inStore("files", (store, tab) => store.put({ file, saved: Date.now() }, `${tab}/${id}`));

/** What this tab has kept of its media, the latest last. */
export async function savedWork() {
  const works = (await inStore("work", (store, tab) => store.getAll(shelfOf(tab)))) ?? [];
  return works.sort((a, b) => a.saved - b.saved);
}

export async function savedFile(id) {
  return (await inStore("files", (store, tab) => store.get(`${tab}/${id}`)))?.file ?? null;
}

export const forget = (id) => STORES.forEach((name) => inStore(name, (store, tab) => store.delete(`${tab}/${id}`)));

/** Throw away what is a day old, of this tab and of others. */
export async function forgetOld() {
  const opened = await database;
  for (const name of opened ? STORES : []) {
    opened.transaction(name, "readwrite").objectStore(name).openCursor().onsuccess = ({ target: { result: cursor } }) => {
      if (!cursor) return;
      if (cursor.value.saved < Date.now() - DAY) cursor.delete();
      cursor.continue();
    };
  }
}
