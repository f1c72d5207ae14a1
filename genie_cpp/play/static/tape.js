// The actions of a play and how each was sampled: what the server needs to play it again, and what a link holds.
//
// As text: parts "s<steps>t<temperature>:<actions>" joined by "~", actions joined by ".", "3x12" is 3 twelve times.

export class Tape {
  constructor() {
    this.entries = [];  // {action, steps, temperature}
  }

  get length() {
    return this.entries.length;
  }

  add(action, settings) {
    this.entries.push({action, ...settings});
  }

  cut(length) {
    this.entries.length = Math.min(length, this.entries.length);
  }

  last() {
    return this.entries.at(-1)?.action ?? null;
  }

  // Runs of equal settings: [{steps, temperature, actions}].
  parts() {
    const parts = [];
    for (const {action, steps, temperature} of this.entries) {
      const last = parts.at(-1);
      if (last && last.steps === steps && last.temperature === temperature) last.actions.push(action);
      else parts.push({steps, temperature, actions: [action]});
    }
    return parts;
  }

  toText() {
    return this.parts().map(({steps, temperature, actions}) => {
      const runs = [];
      for (const action of actions) {
        const last = runs.at(-1);
        if (last && last[0] === action) last[1] += 1;
        else runs.push([action, 1]);
      }
      const words = runs.map(([action, count]) => count === 1 ? `${action}` : `${action}x${count}`);
      return `s${steps}t${temperature}:${words.join(".")}`;
    }).join("~");
  }

  // null where the text is none of ours, or longer than `longest`.
  static fromText(text, longest) {
    const tape = new Tape();
    for (const part of text ? text.split("~") : []) {
      const match = /^s(\d+)t(\d+(?:\.\d+)?):([\dx.]+)$/.exec(part);
      if (!match) return null;
      const settings = {steps: Number(match[1]), temperature: Number(match[2])};
      for (const word of match[3].split(".")) {
        const run = /^(\d+)(?:x(\d+))?$/.exec(word);
        if (!run) return null;
        const count = Number(run[2] ?? 1);
        if (tape.length + count > longest) return null;
        for (let i = 0; i < count; ++i) tape.add(Number(run[1]), settings);
      }
    }
    return tape;
  }
}
