// The page: puts connection, play, recordings and controls together.

import {makeActionButtons, makeArrowSettings, taken} from "./controls.js";
import {Play, fromLink} from "./play.js";
import {EPISODE, FILE, FRAME, PREVIEW, unpack} from "./protocol.js";
import {keepCrisp, paint} from "./screen.js";
import {Socket} from "./socket.js";
import {Watch} from "./watch.js";

const $ = (id) => document.getElementById(id);
const anySeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;

let world = null, buttons = null, arrows = new Map(), saving = null, fellBack = false;

const socket = new Socket({json: told, binary: arrived, lost});
const play = new Play(socket, {
  frame(picture, number, action) {
    if (watching()) return;
    paint($("screen"), picture);
    $("number").value = number;
    $("rate").value = play.rate === null ? "–" : play.rate.toFixed(1);
    $("taken").value = play.taken === null ? "–" : (1000 * play.taken).toFixed(0);
    $("screen").setAttribute("aria-label", `Frame ${number}${action === null ? "" : `, after action ${action + 1}`}`);
  },
  state: showState,
  preview: (action, picture) => buttons.show(action, picture, $("highlight").checked ? play.picture : null),
  stale: () => buttons?.stale(),
  settled() {
    const last = play.tape.last();
    $("said").textContent = `Frame ${play.tape.length}${last === null ? "" : `, after action ${last + 1}`}`;
    history.replaceState(null, "", play.toLink());
  },
  say: complain,
});
const watch = new Watch(socket, {
  frame(picture, words) {
    if (!watching()) return;
    paint($("screen"), picture);
    $("screen").setAttribute("aria-label", words);
  },
  playFrom(frame) {
    choose("play");
    begin(frame);
  },
  visible: watching,
});

function told(fields) {
  if (fields.type === "hello") return meet(fields);
  if (fields.type === "episode") return watch.told(fields);
  if (fields.type === "file") { saving = fields.format; return; }
  if (fields.type === "starting") {
    if (fields.actions) veil(`Playing ${fields.actions} frames again`);
    return;
  }
  if (fields.type === "started") { veil(null); fellBack = false; }
  if (fields.type === "error") {
    complain(fields.message);
    setSaving(false);
    play.told(fields);
    if (!play.ready && !fellBack && (fields.about ?? "start") === "start") {
      fellBack = true;
      play.begin(world.prompts[0], anySeed());
    }
    return;
  }
  play.told(fields);
}

function arrived(buffer) {
  const message = unpack(buffer);
  if (message.kind === FRAME) play.shown(message);
  else if (message.kind === PREVIEW) play.previewed(message);
  else if (message.kind === EPISODE) watch.shown(message);
  else if (message.kind === FILE) keep(message);
}

function meet(hello) {
  const again = world !== null && play.prompt !== null && play.prompt < hello.num_frames;
  world = play.world = hello;
  connected("connected");
  complain("");
  $("world").textContent = hello.env ? `${hello.name} · ${hello.env}` : hello.name;
  buttons = makeActionButtons($("actions"), hello, play);
  arrows = makeArrowSettings($("arrows"), hello);
  makePrompts();
  $("steps").max = Math.min(hello.max_steps, Math.max(25, hello.steps));
  $("prompt").max = hello.num_frames - 1;
  watch.meet(hello);
  if (again) {
    veil(null);
    play.resume();
    return;
  }
  fromAddress();
}

function fromAddress() {
  const link = fromLink(location.hash, world);
  if (!link && location.hash.includes("prompt=")) complain("The link cannot be played here; this is another start.");
  play.settings = link?.settings ?? {steps: world.steps, temperature: world.temperature};
  play.begin(link?.prompt ?? world.prompts[0], link?.seed ?? anySeed(), link?.tape);
}

function lost(words, resumes) {
  connected("disconnected");
  play.interrupted();
  watch.lost();
  setSaving(false);
  veil(words, resumes ? null : () => {
    veil("Connecting");
    socket.connect();
  });
}

const connected = (state) => {
  $("connection").dataset.state = state;
  $("connection").textContent = state;
};

function veil(words, goOn = null) {
  $("veil").hidden = words === null;
  $("veil-words").textContent = words ?? "";
  $("veil-button").hidden = goOn === null;
  $("veil-button").onclick = goOn;
  if (goOn) $("veil-button").focus();
}

function complain(words) {
  $("error").textContent = words;
}

function showState() {
  if (!world || !play.settings) return;
  for (const id of ["undo", "restart", "reseed"]) $(id).disabled = !play.ready;
  const {steps, temperature} = play.settings;
  $("steps").value = $("steps-value").value = steps;
  $("temperature").value = temperature;
  $("temperature-value").value = temperature.toFixed(2);
  if (document.activeElement !== $("seed")) $("seed").value = play.seed;
  if (document.activeElement !== $("prompt")) $("prompt").value = play.prompt;
  for (const button of $("prompts").children) {
    button.setAttribute("aria-pressed", `${Number(button.dataset.frame) === play.prompt}`);
  }
}

function begin(prompt, seed = play.seed) {
  complain("");
  play.begin(prompt, seed);
}

function makePrompts() {
  $("prompts").replaceChildren(...world.prompts.map((frame) => {
    const button = document.createElement("button"), image = document.createElement("img");
    image.src = `/frames/${frame}.png`;
    image.alt = "";
    image.width = world.width;
    image.height = world.height;
    button.dataset.frame = frame;
    button.setAttribute("aria-label", `Recorded frame ${frame}`);
    button.append(image);
    button.addEventListener("click", () => begin(frame));
    return button;
  }));
}

function setSaving(busy) {
  for (const id of ["save-gif", "save-mp4"]) $(id).disabled = busy;
}

function keep({content}) {
  const type = saving === "gif" ? "image/gif" : "video/mp4";
  const address = URL.createObjectURL(new Blob([content], {type}));
  const link = document.createElement("a");
  link.href = address;
  link.download = `genie_${play.prompt}_${play.seed}.${saving}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  setSaving(false);
}

function watching() {
  return !$("watch").hidden;
}

function choose(name) {
  for (const one of ["play", "watch"]) {
    const tab = $(`${one}-tab`), chosen = one === name;
    $(one).hidden = !chosen;
    tab.setAttribute("aria-selected", `${chosen}`);
    tab.tabIndex = chosen ? 0 : -1;
  }
  $("meters").hidden = name === "watch";
  play.releaseAll();
  if (!world) return;
  if (name === "watch") watch.show();
  else {
    watch.run(false);
    if (play.picture) play.on.frame(play.picture, play.tape.length, play.tape.last());
  }
}

const commands = {
  Backspace: () => play.undo(),
  u: () => play.undo(),
  r: () => begin(play.prompt),
  n: () => begin(play.prompt, anySeed()),
};
const watchCommands = {
  " ": () => watch.run(!watch.running),
  ArrowLeft: () => watch.stepBy(-1),
  ArrowRight: () => watch.stepBy(1),
};
const pressed = new Map();  // key to the action it holds

addEventListener("keydown", (event) => {
  if (!world || taken(event)) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (watching()) {
    if (!(key in watchCommands)) return;
    event.preventDefault();
    watchCommands[key]();
    return;
  }
  const digit = /^[1-9]$/.test(key) ? Number(key) - 1 : null;
  const action = digit !== null && digit < world.num_actions ? digit : arrows.get(key);
  if (action === undefined && !(key in commands)) return;
  event.preventDefault();
  if (event.repeat) return;
  if (action === undefined) {
    if (play.ready) commands[key]();
    return;
  }
  pressed.set(event.code, action);
  buttons.hold(action, true);
  play.press(action);
});
addEventListener("keyup", (event) => letGo(event.code));
const letGo = (code) => {
  if (!pressed.has(code)) return;
  buttons.hold(pressed.get(code), false);
  play.release(pressed.get(code));
  pressed.delete(code);
};
addEventListener("blur", () => [...pressed.keys()].forEach(letGo));
addEventListener("hashchange", () => { if (world) fromAddress(); });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    play.releaseAll();
    watch.run(false);
  } else if (play.ready) play.settle();
});

$("undo").addEventListener("click", commands.Backspace);
$("restart").addEventListener("click", commands.r);
$("reseed").addEventListener("click", commands.n);
$("share").addEventListener("click", async () => {
  history.replaceState(null, "", play.toLink());
  try {
    await navigator.clipboard.writeText(location.href);
    $("said").textContent = "Link copied";
    $("share").textContent = "Copied";
  } catch {
    $("share").textContent = "Copy it from the address bar";
  }
  setTimeout(() => { $("share").textContent = "Copy link"; }, 2000);
});
$("steps").addEventListener("input", () => { $("steps-value").value = $("steps").value; });
$("steps").addEventListener("change", () => play.configure({steps: Number($("steps").value)}));
$("temperature").addEventListener("input", () => {
  $("temperature-value").value = Number($("temperature").value).toFixed(2);
});
$("temperature").addEventListener("change", () => play.configure({temperature: Number($("temperature").value)}));
for (const id of ["steps", "temperature"]) $(id).addEventListener("change", () => play.settle());
$("seed").addEventListener("change", () => {
  if ($("seed").checkValidity() && $("seed").value !== "") begin(play.prompt, Number($("seed").value));
});
$("prompt").addEventListener("change", () => {
  if ($("prompt").checkValidity() && $("prompt").value !== "") begin(Number($("prompt").value));
  else complain(`Frames are numbered 0 to ${world.num_frames - 1}.`);
});
$("previews").addEventListener("change", () => {
  play.wantsPreviews = $("previews").checked;
  if (play.wantsPreviews) play.settle();
  else buttons?.stale();
});
$("highlight").addEventListener("change", () => play.settle());
for (const format of ["gif", "mp4"]) {
  $(`save-${format}`).addEventListener("click", () => {
    setSaving(true);
    socket.send({type: "record", format, fps: Math.max(1, Math.min(60, world.fps))});
  });
}
for (const name of ["play", "watch"]) {
  const tab = $(`${name}-tab`), other = name === "play" ? "watch" : "play";
  tab.addEventListener("click", (event) => {
    choose(name);
    if (event.detail > 0) tab.blur();  // after a click by pointer, arrow keys are the world's
  });
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    choose(other);
    $(`${other}-tab`).focus();
  });
}

keepCrisp($("screen"), $("frame"));
socket.connect();
