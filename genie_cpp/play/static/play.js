// A play: what the page knows of its session, so that it can go on after the server restarts.

import {pictures} from "./protocol.js";
import {Tape} from "./tape.js";

const SETTLED_MS = 180, PREVIEW_FRAMES = 4, PAUSE_MS = 1000;

export class Play {
  // on: {frame(picture, number, action), state(), preview(action, picture), stale(), settled(), say(words)}
  constructor(socket, on) {
    this.socket = socket;
    this.on = on;
    this.world = null;
    this.tape = new Tape();
    this.prompt = null;
    this.seed = 0;
    this.settings = null;
    this.ready = false;
    this.wantsPreviews = true;
    this.picture = null;
    this.waiting = false;    // a step is under way
    this.undoable = 0;       // steps that the server can take back without playing anew
    this.held = [];          // actions held down, the latest last
    this.tapped = null;      // pressed while a step was under way
    this.sentAt = 0;
    this.frameTimes = [];
    this.taken = null;
    this.timer = null;
    this.pace = null;
  }

  begin(prompt, seed, tape = new Tape()) {
    this.prompt = prompt;
    this.seed = seed;
    this.tape = tape;
    this.resume();
  }

  // Starts at the server what this page has: after `begin`, and when the connection is back.
  resume() {
    this.ready = this.waiting = false;
    this.held = [];
    this.tapped = null;
    this.frameTimes = [];
    clearTimeout(this.pace);
    this.stale();
    this.on.state();
    const {prompt, seed, settings} = this;
    const start = () => ({type: "start", prompt, seed, ...settings, tape: this.tape.parts()});
    if (this.tape.length > this.world.max_actions || JSON.stringify(start()).length > this.world.max_message) {
      this.on.say(`A play of ${this.tape.length} actions is too long to be taken up again; it starts anew.`);
      this.tape = new Tape();
    }
    this.socket.send(start());
  }

  interrupted() {
    this.ready = this.waiting = false;
    this.releaseAll();
    this.on.state();
  }

  configure(settings) {
    this.settings = {...this.settings, ...settings};
    if (!this.ready) return;
    this.stale();
    this.socket.send({type: "configure", ...this.settings});
  }

  press(action) {
    if (!this.held.includes(action)) this.held.push(action);
    if (!this.ready) return;
    if (this.waiting) this.tapped = action;
    else this.step(action);
  }

  release(action) {
    this.held = this.held.filter((other) => other !== action);
  }

  releaseAll() {
    this.held = [];
    this.tapped = null;
    clearTimeout(this.pace);
  }

  step(action) {
    if (!this.ready || this.waiting) return;
    clearTimeout(this.pace);
    this.stale();
    this.waiting = true;
    this.tapped = null;
    this.sentAt = performance.now();
    this.sentSettings = this.settings;
    this.socket.send({type: "step", action});
  }

  undo() {
    if (!this.ready) return;
    if (this.tape.length === 0 && !this.waiting) {
      this.on.say("There is nothing to undo.");
      return;
    }
    if (this.undoable <= 0 && !this.waiting) {  // further back than the session remembers
      this.tape.cut(this.tape.length - 1);
      this.resume();
      return;
    }
    this.stale();
    this.undoable -= 1;
    this.socket.send({type: "undo", count: 1});
  }

  // The server's JSON messages that are about the play.
  told(fields) {
    if (fields.type === "started") {
      this.tape.cut(fields.number);
      this.undoable = Math.min(fields.number, this.world.history);
      this.ready = true;
      this.settle();
    } else if (fields.type === "undone") {
      this.tape.cut(fields.number);
      this.frameTimes = [];
      this.settle();
    } else if (fields.type === "error") {
      this.waiting = false;
      this.releaseAll();
    }
    this.on.state();
  }

  shown(message) {
    this.picture = pictures(message)[0];
    const stepped = message.action !== null;
    if (stepped && message.number > this.tape.length) {
      this.tape.add(message.action, this.sentSettings);
      this.undoable = Math.min(this.undoable + 1, this.world.history);
    }
    if (stepped) this.timed(message.seconds);
    this.on.frame(this.picture, message.number, message.action);
    if (!this.ready) return;
    this.waiting = false;
    this.settle();
    const next = this.tapped ?? this.held.at(-1);
    if (next === undefined || next === null) return;
    const due = this.sentAt + 1000 / this.world.fps - performance.now();
    if (due <= 0) this.step(next);
    else this.pace = setTimeout(() => {
      const now = this.tapped ?? this.held.at(-1);
      if (now !== undefined && now !== null) this.step(now);
    }, due);
  }

  previewed(message) {
    if (this.ready && !this.waiting && message.number === this.tape.length) {
      this.on.preview(message.action, pictures(message)[0]);
    }
  }

  // Frames a second over the last ones; null before there are two.
  get rate() {
    const times = this.frameTimes;
    return times.length < 2 ? null : 1000 * (times.length - 1) / (times.at(-1) - times[0]);
  }

  timed(seconds) {
    const now = performance.now();
    if (this.frameTimes.length && now - this.frameTimes.at(-1) > PAUSE_MS) this.frameTimes = [];
    this.frameTimes.push(now);
    if (this.frameTimes.length > 20) this.frameTimes.shift();
    this.taken = seconds;
  }

  stale() {
    clearTimeout(this.timer);
    this.on.stale();
  }

  // Once nothing has happened for a moment, there is time for previews and the link.
  settle() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (!this.ready || this.waiting) return;
      this.on.settled();
      if (this.wantsPreviews && !document.hidden) this.socket.send({type: "previews", length: PREVIEW_FRAMES});
    }, SETTLED_MS);
  }

  toLink() {
    const {steps, temperature} = this.settings;
    const fields = new URLSearchParams({prompt: this.prompt, seed: this.seed, steps, temperature});
    const tape = this.tape.toText();
    return `#${fields}${tape ? `&tape=${tape}` : ""}`;
  }
}

// What a link holds, {prompt, seed, settings, tape}; null where it holds no play or one that cannot be.
export function fromLink(hash, world) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  if (!fields.has("prompt")) return null;
  const whole = (name, most) => {
    const text = fields.get(name) ?? "0";
    return /^\d{1,10}$/.test(text) && Number(text) <= most ? Number(text) : null;
  };
  const number = (name, usual, least, most) => {
    const value = fields.has(name) ? Number(fields.get(name)) : usual;
    return value >= least && value <= most ? value : usual;
  };
  const prompt = whole("prompt", world.num_frames - 1), seed = whole("seed", 2 ** 32 - 1);
  const tape = Tape.fromText(fields.get("tape") ?? "", world.max_actions);
  if (prompt === null || seed === null || tape === null) return null;
  const settings = {
    steps: Math.round(number("steps", world.steps, 1, world.max_steps)),
    temperature: number("temperature", world.temperature, 0, world.max_temperature),
  };
  return {prompt, seed, settings, tape};
}
