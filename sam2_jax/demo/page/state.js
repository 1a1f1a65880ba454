// What has been done to a medium, as values that no edit changes: an edit makes a new document out of an old one.
//
// document: objects, the id of the selected one, how many were ever made, and the frame that the last edit was on.
// object:   id, name, color, visible; its prompts by frame; and by frame masks that no prompt made directly, found
//           by tracking or by "everything". A mask comes as {mask: run lengths, score}. `found`, where "everything"
//           found it: {frame, mask}.
// prompts:  points [x, y], labels (1 is on the object, 0 off it), a box or null, `previous` (what the network refines:
//           run lengths, with the server's key for them if it has one), `refines`, whether the first click changed a
//           mask that was there, `chosen`, the candidate taken by hand, and `handed`, whether clicks changed such one.
//           `answer` is the server's, noted once when it comes: it follows from the rest, so it is no edit.

const COLORS = [
  "#2f80ff", "#ff7a1a", "#1fb864", "#f0439c", "#f2c200", "#8b5cf6",
  "#08b8d4", "#ef4444", "#8ccf1d", "#d946ef", "#12a594", "#b4713d",
];
const EDITS_KEPT = 300;

export const emptyDocument = { objects: [], selected: null, made: 0, frame: 0 };
const noPrompts = {
  points: [], labels: [], box: null, previous: null, refines: false, chosen: null, handed: false, answer: null,
};

// ---- looking at a document

export const objectOf = (document, id) => document.objects.find((object) => object.id === id) ?? null;

export const selectedObject = (document) => objectOf(document, document.selected);

export const hasPrompts = (object) => Object.keys(object.prompts).length > 0;

/** The candidate of a frame's prompts that is taken: the one chosen by hand, or the best. */
export function takenCandidate({ answer, chosen }) {
  return answer && Math.min(chosen ?? answer.best, answer.masks.length - 1);
}

/** Whether clicks and box do not say by themselves which candidate was taken: one was, or is refined, by hand. */
export const byHand = ({ answer, chosen, handed }) => handed || (chosen !== null && chosen !== answer?.best);

/** What an object is on a frame, as {mask, score}, or null where nothing is known. */
export function maskOn(object, frame) {
  const prompts = object.prompts[frame];
  return object.masks[frame] ?? (prompts?.answer ? prompts.answer.masks[takenCandidate(prompts)] : null);
}

/** The frames on which an object has a mask or prompts, in order. */
export function framesOf(object) {
  return [...new Set([...Object.keys(object.prompts), ...Object.keys(object.masks)])].map(Number).sort((a, b) => a - b);
}

// ---- prompts

/** An object's prompts on a frame with one more click. The network refines the mask that was there. */
export function withClick(object, frame, point, label) {
  const before = object?.prompts[frame] ?? noPrompts;
  const { points, labels, box } = before;
  const previous = object?.masks[frame]?.mask ?? taken(before);
  const refines = before.refines || Boolean(object?.masks[frame] && points.length === 0 && !box);
  const handed = byHand(before);
  return { ...noPrompts, box, previous, refines, handed, points: [...points, point], labels: [...labels, label] };
}

/** The mask of prompts with its key; of prompts without an answer what they were to refine. */
function taken(prompts) {
  if (!prompts.answer) return prompts.previous;
  const index = takenCandidate(prompts);
  return { ...prompts.answer.masks[index].mask, key: prompts.answer.keys[index] };
}

/** The same with a box in place of the box before. */
export function withBox(object, frame, box) {
  const { points, labels } = object?.prompts[frame] ?? noPrompts;
  return { ...noPrompts, points, labels, box };
}

// ---- edits

export function newObject(document) {
  const made = document.made + 1;
  const object = {
    id: made, name: `Object ${made}`, color: COLORS[(made - 1) % COLORS.length], visible: true, prompts: {}, masks: {},
  };
  return { ...document, made, selected: object.id, objects: [...document.objects, object] };
}

/** Prompts for the selected object, or for a new one where none is selected. A mask that was found makes way. */
export function prompt(document, frame, prompts) {
  const place = selectedObject(document) ? document : newObject(document);
  return edited(place, place.selected, frame, (object) => {
    const { [frame]: _, ...masks } = object.masks;
    return { visible: true, masks, prompts: { ...object.prompts, [frame]: prompts } };
  });
}

export function choose(document, frame, candidate) {
  const prompts = selectedObject(document)?.prompts[frame];
  return prompts?.answer?.masks[candidate] ? prompt(document, frame, { ...prompts, chosen: candidate }) : document;
}

export const rename = (document, id, name) => edited(document, id, document.frame, () => ({ name }));

export const show = (document, id, visible) => edited(document, id, document.frame, () => ({ visible }));

export const select = (document, id) => ({ ...document, selected: id });

/** Without an object; its neighbour is selected. */
export function remove(document, id) {
  const place = document.objects.findIndex((object) => object.id === id);
  const objects = document.objects.filter((object) => object.id !== id);
  const selected = document.selected === id ? (objects[Math.min(place, objects.length - 1)]?.id ?? null) : document.selected;
  return { ...document, objects, selected };
}

/** Each mask as an object of its own, in place of those that were found before and never touched. */
export function withFound(document, frame, masks) {
  const kept = document.objects.filter((object) => !object.found || hasPrompts(object));
  const found = masks.reduce((result, found) => {
    const { objects, ...rest } = newObject(result);
    const object = { ...objects.at(-1), found: { frame, mask: found.mask }, masks: { [frame]: found } };
    return { ...rest, objects: [...objects.slice(0, -1), object] };
  }, { ...document, objects: kept });
  return { ...found, frame, selected: selectedObject({ ...document, objects: kept })?.id ?? null };
}

/** What tracking found on a frame, as [{id, mask, score}]. */
export function withTracked(document, frame, tracked) {
  return tracked.reduce(
    (result, { id, mask, score }) =>
      edited(result, id, document.frame, ({ masks }) => ({ masks: { ...masks, [frame]: { mask, score } } })),
    document,
  );
}

function edited(document, id, frame, change) {
  const objects = document.objects.map((object) => (object.id === id ? { ...object, ...change(object) } : object));
  return { ...document, frame, objects };
}

// ---- undo and redo

export const begin = (document = emptyDocument) => ({ past: [], present: document, future: [] });

/** A new present that can be undone. */
export function commit(history, document) {
  if (document === history.present) return history;
  return { past: [...history.past, history.present].slice(-EDITS_KEPT), present: document, future: [] };
}

/** A new present in place of the present: for what nobody would want to undo by itself. */
export const amend = (history, document) => ({ ...history, present: document });

export function undo({ past, present, future }) {
  if (past.length === 0) return { past, present, future };
  return { past: past.slice(0, -1), present: past.at(-1), future: [present, ...future] };
}

export function redo({ past, present, future }) {
  if (future.length === 0) return { past, present, future };
  return { past: [...past, present], present: future[0], future: future.slice(1) };
}
