// Recorded episodes, with what the latent action model makes of each step.

import {pictures} from "./protocol.js";
import {hue} from "./screen.js";

const $ = (id) => document.getElementById(id);

export class Watch {
  // on: {frame(picture, words), playFrom(frame), visible()}
  constructor(socket, on) {
    this.socket = socket;
    this.on = on;
    this.world = null;
    this.timer = null;
    this.head = null;  // the part whose pictures are about to come
    this.open(0);
    $("episode").addEventListener("change", () => this.choose(Number($("episode").value)));
    $("position").addEventListener("input", () => this.seek(Number($("position").value)));
    $("back").addEventListener("click", () => this.stepBy(-1));
    $("forward").addEventListener("click", () => this.stepBy(1));
    $("run").addEventListener("click", () => this.run(!this.running));
    $("from-here").addEventListener("click", () => on.playFrom(this.recordedFrame));
    $("timeline").addEventListener("click", (event) => {
      this.seek(Math.floor((this.length - 1) * event.offsetX / $("timeline").clientWidth));
    });
    new ResizeObserver(() => this.drawTimeline()).observe($("timeline"));
  }

  meet(world) {
    this.world = world;
    const options = world.episodes.map((length, i) => new Option(`${i + 1} of ${world.episodes.length}, ${length} frames`, i));
    $("episode").replaceChildren(...options);
    $("recording").textContent = world.recording;
    $("recorded-box").hidden = !world.recorded_actions;
    this.open(Math.min(this.episode, world.episodes.length - 1));
    if (this.on.visible()) this.seek(0);
  }

  open(episode) {
    this.run(false);
    this.episode = episode;
    this.place = 0;
    this.frames = [];
    this.latent = [];
    this.recorded = [];
    this.asked = new Set();
  }

  choose(episode) {
    this.open(episode);
    $("episode").value = episode;
    this.seek(0);
  }

  // Shows what was last looked at; called when the tab is opened.
  show() {
    this.seek(this.place);
  }

  get length() {
    return this.world ? this.world.episodes[this.episode] : 0;
  }

  get recordedFrame() {
    return this.world.first_frames[this.episode] + this.place * this.world.stride;
  }

  get running() {
    return this.timer !== null;
  }

  run(on) {
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => this.advance(), 1000 / this.world.fps) : null;
    $("run").firstChild.textContent = on ? "Pause " : "Play ";
    if (on && this.place >= this.length - 1) this.seek(0);
  }

  advance() {
    if (this.place >= this.length - 1) this.run(false);
    else if (this.frames[this.place + 1]) this.seek(this.place + 1);
    else this.ask(this.place + 1);
  }

  stepBy(count) {
    this.run(false);
    this.seek(this.place + count);
  }

  seek(place) {
    this.place = Math.max(0, Math.min(place, this.length - 1));
    this.ask(this.place);
    this.ask(Math.min(this.place + 16, this.length - 1));  // the part after this one, in good time
    this.draw();
  }

  // Asks for the part that holds a frame: parts are 32 frames long, as the server sends them.
  ask(place) {
    const begin = place - place % 32;
    if (this.asked.has(begin)) return;
    if (this.socket.send({type: "episode", episode: this.episode, begin})) this.asked.add(begin);
  }

  lost() {
    this.run(false);
    this.head = null;
    this.asked = new Set(this.frames.flatMap((_, i) => i % 32 === 0 ? [i] : []));
  }

  told(fields) {
    this.head = fields;
    if (fields.episode !== this.episode) return;
    fields.latent.forEach((action, i) => { this.latent[fields.begin + i] = action; });
    fields.recorded?.forEach((action, i) => { this.recorded[fields.begin + i] = action; });
  }

  shown(message) {
    if (this.head?.episode !== this.episode) return;
    pictures(message).forEach((picture, i) => { this.frames[message.number + i] = picture; });
    if (this.on.visible()) this.draw();
  }

  draw() {
    const {place} = this;
    $("position").max = Math.max(0, this.length - 1);
    $("position").value = place;
    $("position-value").value = `${place + 1} of ${this.length}`;
    this.name("latent", this.latent[place] === undefined ? null : this.latent[place] + 1, this.latent[place], this.world.num_actions);
    this.name("recorded", this.recorded[place], this.recorded[place], this.world.recorded_actions);
    if (this.frames[place]) this.on.frame(this.frames[place], this.words());
    this.drawTimeline();
  }

  name(id, shown, action, count) {
    $(id).textContent = shown ?? "–";
    if (action !== undefined) $(id).parentElement.style.setProperty("--hue", hue(action, count));
  }

  words() {
    const latent = this.latent[this.place], recorded = this.recorded[this.place];
    const parts = [`Frame ${this.place + 1} of recorded episode ${this.episode + 1}`];
    if (latent !== undefined) parts.push(`latent action ${latent + 1}`);
    if (recorded !== undefined) parts.push(`recorded action ${recorded}`);
    return parts.join(", ");
  }

  drawTimeline() {
    const canvas = $("timeline");
    if (!this.world || canvas.clientWidth === 0) return;
    canvas.width = canvas.clientWidth * (window.devicePixelRatio || 1);
    const context = canvas.getContext("2d"), steps = Math.max(1, this.length - 1), wide = canvas.width / steps;
    const rows = this.world.recorded_actions
      ? [[this.latent, this.world.num_actions], [this.recorded, this.world.recorded_actions]]
      : [[this.latent, this.world.num_actions]];
    const high = (canvas.height - 6) / rows.length;
    context.clearRect(0, 0, canvas.width, canvas.height);
    rows.forEach(([actions, count], row) => {
      context.fillStyle = "#8884";
      context.fillRect(0, row * (high + 4) + 1, canvas.width, high - 2);
      for (let i = 0; i < steps; ++i) {
        if (actions[i] === undefined) continue;
        context.fillStyle = `hsl(${hue(actions[i], count)} 70% 55%)`;
        context.fillRect(i * wide, row * (high + 4) + 1, Math.ceil(wide), high - 2);
      }
    });
    context.fillStyle = getComputedStyle(document.body).color;
    context.fillRect(Math.min(this.place * wide, canvas.width - 3), 0, 3, canvas.height);
    canvas.setAttribute("aria-label", this.words());
  }
}
