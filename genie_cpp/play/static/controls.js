// Actions on buttons and keys. Buttons and keys are numbered from 1, the model's actions from 0.

import {hue, paint} from "./screen.js";

const ARROWS = [
  ["ArrowUp", "w", "↑ W"], ["ArrowLeft", "a", "← A"], ["ArrowDown", "s", "↓ S"], ["ArrowRight", "d", "→ D"],
];
const STORED = "genie_cpp.arrows";

// A button for each action in `box`; returns {show(action, picture, before), stale(), hold(action, held)}.
export function makeActionButtons(box, world, play) {
  const buttons = Array.from({length: world.num_actions}, (_, action) => {
    const button = document.createElement("button");
    button.className = "action";
    button.dataset.action = action;
    button.style.setProperty("--hue", hue(action, world.num_actions));
    button.style.setProperty("--ratio", world.width / world.height);
    button.setAttribute("aria-label", `Action ${action + 1}`);
    if (action < 9) button.setAttribute("aria-keyshortcuts", `${action + 1}`);
    const preview = document.createElement("canvas");
    preview.width = world.width;
    preview.height = world.height;
    preview.setAttribute("aria-hidden", "true");
    const label = document.createElement("span");
    label.textContent = `${action + 1}`;
    button.append(preview, label);
    holdable(button, () => play.press(action), () => play.release(action));
    return button;
  });
  box.replaceChildren(...buttons);
  const canvas = (action) => buttons[action].firstChild;
  return {
    show(action, picture, before) {
      paint(canvas(action), picture, before);
      canvas(action).dataset.stale = "false";
    },
    stale: () => buttons.forEach((_, action) => { canvas(action).dataset.stale = "true"; }),
    hold: (action, held) => { if (buttons[action]) buttons[action].dataset.held = held; },
  };
}

// A button that acts while it is held by pointer, Enter or Space, and once when a screen reader clicks it.
function holdable(button, press, release) {
  let held = false;
  const down = () => { held = true; button.dataset.held = "true"; press(); };
  const up = () => {
    if (!held) return;
    held = false;
    button.dataset.held = "false";
    release();
  };
  button.addEventListener("pointerdown", (event) => { if (event.button === 0) down(); });
  for (const type of ["pointerup", "pointercancel", "pointerleave", "blur"]) button.addEventListener(type, up);
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  button.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (!event.repeat) down();
  });
  button.addEventListener("keyup", (event) => { if (event.key === "Enter" || event.key === " ") up(); });
  button.addEventListener("click", (event) => {
    if (event.detail === 0 && event.pointerType !== "mouse") { press(); release(); }
  });
}

// Selects for what the arrow keys do; returns a Map from key to action that follows them.
export function makeArrowSettings(box, world) {
  const keys = new Map();
  let stored = [];
  try {
    stored = JSON.parse(localStorage.getItem(STORED)) ?? [];
  } catch {
    stored = [];  // storage is off, or holds something else
  }
  const selects = ARROWS.map(([arrow, letter, name], place) => {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.append(new Option("nothing", ""));
    for (let action = 0; action < world.num_actions; ++action) select.append(new Option(`action ${action + 1}`, action));
    const chosen = Array.isArray(stored) && place in stored ? stored[place] : place;
    select.value = Number(chosen) < world.num_actions ? `${chosen ?? ""}` : "";
    label.append(name, select);
    const apply = () => {
      for (const key of [arrow, letter]) {
        if (select.value === "") keys.delete(key);
        else keys.set(key, Number(select.value));
      }
    };
    select.addEventListener("change", () => {
      apply();
      try {
        localStorage.setItem(STORED, JSON.stringify(selects.map((one) => one.querySelector("select").value)));
      } catch {
        return;  // the choice holds until the page is closed
      }
    });
    apply();
    return label;
  });
  box.replaceChildren(...selects);
  return keys;
}

// Whether a key belongs to the element that has the focus.
export function taken(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  const target = event.target;
  if (!(target instanceof HTMLElement)) return false;
  if (target.matches("select, input[type=number]")) return true;
  if (target.matches("input[type=range], [role=tab]")) return event.key.startsWith("Arrow");
  return target.matches("button, summary, input") && (event.key === " " || event.key === "Enter");
}
