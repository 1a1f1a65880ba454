// The page: which part does what, which key means what, what is drawn when.

import { App } from "./app.js";
import { Asking } from "./asking.js";
import { Editing } from "./editing.js";
import { Files } from "./files.js";
import { Frames } from "./frames.js";
import { Gestures } from "./gestures.js";
import { Jobs } from "./jobs.js";
import { Candidates, ObjectList } from "./objects.js";
import { listenToKeys } from "./shortcuts.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";

const SPOKEN_AFTER = 400; // milliseconds that the keyboard's cursor rests before its place is told

const element = (id) => document.getElementById(id);
const clicked = (id, act) => element(id).addEventListener("click", act);

// ---- what is told

function say(sentence) {
  element("status").textContent = sentence;
}

/** What went wrong, or nothing any more. */
function complain(error = null) {
  if (error) say("");
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
const editing = new Editing(app, asking);
const jobs = new Jobs(app);
stage.follow(asking);

const isShown = () => stage.shown?.medium.id === app.medium?.id && stage.shown?.frame === app.frame;
const usable = () => Boolean(app.medium) && !app.dropped && isShown();

let saying = 0;
const gestures = new Gestures(canvas, stage, {
  click: (point, label, since) => asking.click(point, label, since),
  box: (box, since) => asking.box(box, since),
  point(point, label, byKey) {
    asking.point(point, label);
    clearTimeout(saying);
    if (byKey) saying = setTimeout(() => editing.sayWhere(point), SPOKEN_AFTER);
  },
  select: (point) => editing.selectAt(point),
  usable,
  removes: () => app.tool === "remove",
  moves: () => app.tool === "move",
  say,
});
const list = new ObjectList(element("list"), element("object-row"), editing);
const candidates = new Candidates(element("candidates"), element("candidate"), (index) => editing.choose(index));
const timeline = new Timeline(
  {
    section: element("timeline"), slider: element("frame"), marks: element("marks"),
    number: element("frame-number"), play: element("play"),
  },
  app, frames,
);

// ---- what is shown

let wanted = null;

/** The frame that is to be seen, as soon as its pixels are here. */
async function showFrame() {
  const { medium, frame } = app;
  const key = (wanted = `${medium?.id}/${frame}`);
  canvas.ariaBusy = String(Boolean(medium) && !isShown());
  if (!medium) return stage.clear();
  if (isShown()) return stage.redraw();
  try {
    const bitmap = await frames.get(medium, frame);
    if (wanted !== key || app.medium !== medium) return;
    stage.show(bitmap, medium, frame);
    asking.answer();
  } catch (error) {
    if (wanted === key) app.refused(error);
  } finally {
    if (wanted === key) canvas.ariaBusy = "false";
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
  element("model").textContent = app.model.split("/").at(-1);
  element("model").title = app.model;
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
  const { length } = app.document.objects;
  if (length === 0) return "Click on something in the picture, or drag a box around it.";
  return length > 1 ? "" : "Click again to add to it, with Remove to take away. New begins another object.";
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

async function sendAgain(file) {
  complain();
  await app.sendAgain(file);
  if (!app.dropped) asking.retry();
}

const files = new Files({ input: element("file"), curtain: element("drop") }, {
  open(file) {
    complain();
    app.add(file);
  },
  sendAgain,
});

clicked("send-again", () => app.hasFile ? sendAgain() : files.choose({ forDropped: true }));
clicked("open", () => files.choose());
clicked("open-first", () => files.choose());
element("media").addEventListener("change", ({ target }) => app.choose(target.value));

// ---- buttons

function zoom(factor) {
  stage.view.zoom(factor);
  stage.redraw();
}

function fit() {
  stage.view.fit();
  stage.redraw();
}

function undo() {
  asking.forgetHover();
  jobs.stopTracking();
  app.undo();
}

function redo() {
  asking.forgetHover();
  jobs.stopTracking();
  app.redo();
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

clicked("undo", undo);
clicked("redo", redo);
clicked("everything", () => jobs.everything());
clicked("new", () => editing.newObject());
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
element("problem").lastElementChild.addEventListener("click", () => complain());
for (const button of document.querySelectorAll("[data-track]")) {
  button.addEventListener("click", () => jobs.track(button.dataset.track));
}
for (const radio of document.querySelectorAll("[name=tool]")) {
  radio.addEventListener("change", () => {
    app.tool = radio.value;
    canvas.classList.toggle("moves", radio.value === "move");
    asking.forgetHover();
  });
}

// ---- keys

const withSelected = (act) => () => app.selected && act(app.selected.id);

listenToKeys({
  keys: {
    1: () => editing.choose(0),
    2: () => editing.choose(1),
    3: () => editing.choose(2),
    n: () => editing.newObject(),
    "[": () => editing.selectNext(-1),
    "]": () => editing.selectNext(1),
    h: withSelected((id) => editing.toggle(id)),
    Delete: withSelected((id) => editing.remove(id)),
    Backspace: withSelected((id) => editing.remove(id)),
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
  },
  withControl: { z: ({ shiftKey }) => (shiftKey ? redo() : undo()), y: redo },
  escape() {
    if (formatsShown()) {
      showFormats(false);
      element("export").focus();
    } else {
      jobs.stop();
    }
  },
  suspended: () => element("keys").open,
  tapped: () => timeline.toggle(),
  everywhere: element("single-keys"),
  canvas,
  gestures,
});

// ---- begin

app.begin().catch(complain);
