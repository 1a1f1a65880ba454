// The page: which part does what, which key means what, what is drawn when.

import { App } from "./app.js";
import { Asking, percent } from "./asking.js";
import { Frames } from "./frames.js";
import { Gestures } from "./gestures.js";
import { Jobs } from "./jobs.js";
import { contains, decode } from "./masks.js";
import { Candidates, ObjectList } from "./objects.js";
import { Stage } from "./stage.js";
import * as documents from "./state.js";
import { Timeline } from "./timeline.js";

const element = (id) => document.getElementById(id);
const clicked = (id, act) => element(id).addEventListener("click", act);

// ---- what is told

function say(sentence, busy = false) {
  element("status").textContent = sentence;
  document.body.ariaBusy = String(busy);
}

function complain(error) {
  console.info(error); // not as an error: it is the user's to read, and stands on the page
  const [text, dismiss] = element("problem").children;
  text.textContent = error?.message ?? "";
  dismiss.hidden = !error;
}

// ---- the parts

const app = new App({ say, complain });
const frames = new Frames();
const canvas = element("canvas");
const stage = new Stage(canvas, app);
const asking = new Asking(app, stage.redraw);
const jobs = new Jobs(app);
stage.follow(asking);

const usable = () => Boolean(stage.shown) && !app.dropped && stage.shown.frame === app.frame;

const gestures = new Gestures(canvas, stage, {
  click: (point, label, since) => asking.click(point, label, since),
  box: (box, since) => asking.box(box, since),
  point(point, label, byKey) {
    asking.point(point, label);
    if (byKey) sayWhere(point);
  },
  select: selectAt,
  usable,
  removes: () => app.tool === "remove",
  say,
});

const list = new ObjectList(element("list"), element("object-row"), {
  select: (id) => select(id),
  rename: (id, name) => name ? app.edit((now) => documents.rename(now, id, name)) : app.changed(),
  show: (id) => toggle(id),
  remove: (id) => remove(id),
});
const candidates = new Candidates(element("candidates"), element("candidate"), choose);
const timeline = new Timeline(
  {
    section: element("timeline"), slider: element("frame"), marks: element("marks"),
    number: element("frame-number"), play: element("play"),
  },
  app, frames,
);

// ---- objects

const named = (id) => app.document.objects.find((object) => object.id === id);

function select(id) {
  if (id === app.document.selected) return;
  asking.forgetHover();
  app.amend((now) => documents.select(now, id));
  list.reveal(id);
  const object = named(id);
  say(`${object.name} is selected.`);
}

/** Select the object whose mask has a pixel; of several the smallest. */
function selectAt(pixel) {
  const area = (object) => decode(documents.maskOn(object, app.frame).mask).area;
  const there = objectsAt(pixel).sort((one, other) => area(one) - area(other));
  if (there.length > 0) select(there[0].id);
  else say("No object there.");
}

const objectsAt = (pixel) => app.document.objects.filter((object) => {
  const found = object.visible && documents.maskOn(object, app.frame);
  return found && contains(found.mask, pixel);
});

function selectNext(by) {
  const { objects, selected } = app.document;
  if (objects.length === 0) return;
  const place = objects.findIndex(({ id }) => id === selected);
  select(objects[(place + by + objects.length) % objects.length].id);
}

function newObject() {
  if (!app.medium) return;
  const { selected } = app;
  asking.forgetHover();
  if (selected && documents.framesOf(selected).length === 0) return say(`${selected.name} is empty: click on the picture.`);
  app.edit((now) => documents.newObject(now));
  list.reveal(app.document.selected);
  say(`${app.selected.name}: click on the picture.`);
}

function remove(id) {
  const { name } = named(id);
  asking.forgetHover();
  app.edit((now) => documents.remove(now, id));
  say(`${name} is deleted.`);
}

function toggle(id) {
  const { name, visible } = named(id);
  app.amend((now) => documents.show(now, id, !visible));
  say(`${name} is ${visible ? "hidden" : "shown"}.`);
}

function choose(candidate) {
  if (!app.selected || app.selected.masks[app.frame]) return;
  app.edit((now) => documents.choose(now, app.frame, candidate));
  const found = app.selected.prompts[app.frame]?.answer?.masks[candidate];
  if (found) say(`Candidate ${candidate + 1}: ${percent(decode(found.mask).area)} of the picture, score ${found.score.toFixed(2)}.`);
}

let saying = 0;
function sayWhere([x, y]) {
  clearTimeout(saying);
  saying = setTimeout(() => {
    const names = objectsAt([x, y]).map(({ name }) => name);
    say(`At ${x}, ${y}${names.length ? `, on ${names.join(", ")}` : ""}.`);
  }, 400);
}

// ---- what is shown

let wanted = null;

/** The frame that is to be seen, as soon as its pixels are here. */
async function showFrame() {
  const { medium, frame } = app;
  if (!medium) return stage.clear();
  if (stage.shown?.medium.id === medium.id && stage.shown.frame === frame) return stage.redraw();
  const key = (wanted = `${medium.id}/${frame}`);
  try {
    const bitmap = await frames.get(medium, frame);
    if (wanted !== key || app.medium !== medium) return;
    stage.show(bitmap, medium, frame);
    asking.answer();
  } catch (error) {
    if (wanted === key) app.refused(error);
  }
}

app.listen(() => {
  showFrame();
  if (usable() && !timeline.playing) asking.answer();
  scheduleRender();
});

let scheduled = false;
function scheduleRender() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    render();
  });
}

function render() {
  const { medium, document: now, selected, frame } = app;
  list.render(now, frame);
  candidates.render(selected?.visible ? selected : null, frame);
  timeline.render();
  element("undo").disabled = !app.canUndo;
  element("redo").disabled = !app.canRedo;
  for (const id of ["everything", "export", "new"]) element(id).disabled = !medium;
  element("empty").hidden = Boolean(medium);
  element("hint").textContent = hint();
  element("model").textContent = app.model;
  element("gone").hidden = !app.dropped;
  if (app.dropped) {
    element("gone-name").textContent = medium.name;
    element("send-again").textContent = app.hasFile ? "Send it again" : "Choose the file again";
  }
  renderMedia();
  renderJob();
}

function hint() {
  if (!app.medium) return "";
  if (app.document.objects.length === 0) return "Click on something in the picture, or drag a box around it.";
  if (app.document.objects.length === 1) return "Click again to add, right click to remove. N begins another object.";
  return "";
}

function renderMedia() {
  element("media-choice").hidden = app.media.size < 2;
  const options = [...app.media.values()].map(({ medium: { id, name } }) => [id, name]);
  const choice = element("media");
  if (String([...choice.options].map(({ value }) => value)) !== String(options.map(([id]) => id))) {
    choice.replaceChildren(...options.map(([id, name]) => new Option(name, id)));
  }
  choice.value = app.medium?.id ?? "";
}

function renderJob() {
  const { running } = jobs;
  element("job").hidden = !running;
  document.body.ariaBusy = String(Boolean(running));
  if (!running) return;
  element("job-name").textContent = running.name;
  const bar = element("job-progress");
  if (running.progress === null) bar.removeAttribute("value");
  else bar.value = running.progress;
}

/** From the release of the pointer to the drawn mask: as a measure of the browser, and for tests on the page itself. */
stage.onDrawn = () => {
  const { waiting } = asking;
  if (!waiting?.prompts.answer) return;
  asking.waiting = null;
  const { duration } = performance.measure("click", { start: waiting.since, end: performance.now() });
  Object.assign(document.documentElement.dataset, {
    lastClickMilliseconds: duration.toFixed(1), lastModelMilliseconds: waiting.prompts.answer.milliseconds,
  });
};

// ---- files

function open(file) {
  if (!file) return;
  complain(null);
  app.add(file);
}

let again = false; // the file that is chosen is for a medium that the server has dropped
function chooseFile({ forDropped = false } = {}) {
  again = forDropped;
  element("file").click();
}

element("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (again && file) sendAgain(file);
  else open(file);
});

async function sendAgain(file) {
  complain(null);
  await app.sendAgain(file);
  if (!app.dropped) asking.retry();
}

clicked("send-again", () => app.hasFile ? sendAgain() : chooseFile({ forDropped: true }));
clicked("open", () => chooseFile());
clicked("open-first", () => chooseFile());
element("media").addEventListener("change", ({ target }) => app.choose(target.value));

const carriesFiles = ({ dataTransfer }) => [...(dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  element("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").hidden = true;
  open(event.dataTransfer.files[0]);
});
addEventListener("paste", ({ clipboardData }) => open(clipboardData?.files[0]));

// ---- buttons

function zoom(factor) {
  stage.view.zoom(factor);
  stage.redraw();
}

function fit() {
  stage.view.fit();
  stage.redraw();
}

function showFormats(shown) {
  const { medium } = app;
  element("export").ariaExpanded = String(shown);
  element("formats").hidden = !shown;
  for (const button of element("formats").querySelectorAll("button")) {
    button.hidden = Boolean(button.dataset.kind) && button.dataset.kind !== medium?.kind;
  }
}

const formatsShown = () => !element("formats").hidden;

clicked("undo", () => app.undo());
clicked("redo", () => app.redo());
clicked("everything", () => jobs.everything());
clicked("new", newObject);
clicked("stop", () => jobs.stop());
clicked("zoom-in", () => zoom(1.4));
clicked("zoom-out", () => zoom(1 / 1.4));
clicked("zoom-fit", fit);
clicked("previous", () => timeline.step(-1));
clicked("next", () => timeline.step(1));
clicked("previous-prompt", () => timeline.toPrompts(-1));
clicked("next-prompt", () => timeline.toPrompts(1));
clicked("help", () => element("keys").showModal());
clicked("keys-close", () => element("keys").close());
clicked("export", () => showFormats(!formatsShown()));
element("formats").addEventListener("click", ({ target }) => {
  const format = target.closest("button")?.dataset.format;
  if (!format) return;
  showFormats(false);
  element("export").focus();
  jobs.export(format);
});
addEventListener("pointerdown", ({ target }) => target.closest(".menu") ?? showFormats(false));
element("problem").lastElementChild.addEventListener("click", () => complain(null));
for (const button of document.querySelectorAll("[data-track]")) {
  button.addEventListener("click", () => jobs.track(button.dataset.track));
}
for (const radio of document.querySelectorAll("[name=tool]")) {
  radio.addEventListener("change", () => {
    app.tool = radio.value;
    asking.forgetHover();
  });
}

// ---- keys of the whole page. Single letters can be switched off for those whose speech or hands would hit them.

const singleKeys = element("single-keys");
singleKeys.checked = localStorage.singleKeys !== "off";
singleKeys.addEventListener("change", () => {
  localStorage.singleKeys = singleKeys.checked ? "on" : "off";
});

const withSelected = (act) => () => app.selected && act(app.selected.id);
const keys = {
  1: () => choose(0),
  2: () => choose(1),
  3: () => choose(2),
  n: newObject,
  "[": () => selectNext(-1),
  "]": () => selectNext(1),
  h: withSelected(toggle),
  Delete: withSelected(remove),
  Backspace: withSelected(remove),
  e: () => app.medium && jobs.everything(),
  t: () => app.medium?.frames > 1 && jobs.track("forward"),
  ",": () => timeline.step(-1),
  ".": () => timeline.step(1),
  "<": () => timeline.toPrompts(-1),
  ">": () => timeline.toPrompts(1),
  "+": () => zoom(1.4),
  "=": () => zoom(1.4),
  "-": () => zoom(1 / 1.4),
  0: fit,
  "?": () => element("keys").showModal(),
};

const keyed = ({ key }) => (key.length === 1 ? key.toLowerCase() : key);
const typing = ({ target }) => target.matches("input:not([type=radio], [type=checkbox], [type=range]), select");
const pressing = ({ target }) => target.matches("button, input, select, a");

addEventListener("keydown", (event) => {
  if (element("keys").open) return;
  if (event.key === "Escape") return escape();
  if (event.ctrlKey || event.metaKey) return typing(event) || withControl(event);
  if (typing(event) || event.altKey) return;
  if (event.key === " ") return pressing(event) || holdSpace(event);
  if (event.target !== canvas && !singleKeys.checked) return;
  const act = keys[keyed(event)];
  if (!act) return;
  event.preventDefault();
  act();
});

function escape() {
  if (formatsShown()) {
    showFormats(false);
    element("export").focus();
  } else if (jobs.running) {
    jobs.stop();
  }
}

function withControl(event) {
  const act = { z: () => (event.shiftKey ? app.redo() : app.undo()), y: () => app.redo() }[keyed(event)];
  if (!act) return;
  event.preventDefault();
  asking.forgetHover();
  act();
}

// Space held and dragged moves the picture; tapped, it plays.
let spaceSince = null;
let panned = false;
function holdSpace(event) {
  event.preventDefault();
  if (spaceSince !== null) return;
  spaceSince = event.timeStamp;
  panned = false;
  gestures.space = true;
}
canvas.addEventListener("pointermove", () => {
  panned ||= gestures.panning;
});
addEventListener("keyup", (event) => {
  if (event.key !== " " || spaceSince === null) return;
  gestures.space = false;
  spaceSince = null;
  if (!panned) timeline.toggle();
});

// ---- begin

app.begin().catch(complain);
