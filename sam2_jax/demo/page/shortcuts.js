// Keys of the whole page. Those without Ctrl can be switched off for people whose speech or hands would hit them by
// accident; then they work on the picture alone.

const keyOf = ({ key }) => (key.length === 1 ? key.toLowerCase() : key);
const typing = ({ target }) => target.matches("input:not([type=radio], [type=checkbox], [type=range]), select");
const pressing = ({ target }) => target.matches("button, input, select");

/**
 * keys, withControl: what a key does, by its name. escape: what Escape does. suspended: whether a dialog has the keys.
 * everywhere: the checkbox. canvas and gestures: where Space with a drag moves the picture. tapped: Space alone.
 */
export function listenToKeys({ keys, withControl, escape, suspended, everywhere, canvas, gestures, tapped }) {
  everywhere.checked = localStorage.singleKeys !== "off";
  everywhere.addEventListener("change", () => {
    localStorage.singleKeys = everywhere.checked ? "on" : "off";
  });

  addEventListener("keydown", (event) => {
    if (suspended()) return;
    if (event.key === "Escape") return escape();
    if (typing(event) || event.altKey) return;
    const control = event.ctrlKey || event.metaKey;
    if (!control && event.key === " ") return pressing(event) || hold(event);
    if (!control && event.target !== canvas && !everywhere.checked) return;
    const act = (control ? withControl : keys)[keyOf(event)];
    if (!act) return;
    event.preventDefault();
    act(event);
  });

  let held = false;
  let dragged = false;
  function hold(event) {
    event.preventDefault();
    if (!held) dragged = false;
    held = gestures.space = true;
  }
  canvas.addEventListener("pointermove", () => {
    dragged ||= gestures.panning;
  });
  addEventListener("keyup", ({ key }) => {
    if (key !== " " || !held) return;
    held = gestures.space = false;
    if (!dragged) tapped();
  });
}
