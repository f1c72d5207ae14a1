// A WebSocket that comes back: it connects again, ever more slowly, until the server answers.

import {CLOSE_FULL, CLOSE_IDLE, CLOSE_RATE} from "./protocol.js";

const FIRST_WAIT = 400, LONGEST_WAIT = 4000;

export class Socket {
  // on: {json(fields), binary(buffer), lost(words, resumes)}; resumes is false where a person has to ask for it.
  constructor(on) {
    this.on = on;
    this.wait = FIRST_WAIT;
    this.socket = null;
    this.timer = null;
  }

  connect() {
    clearTimeout(this.timer);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = this.socket = new WebSocket(`${scheme}://${location.host}/socket`);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({data}) => {
      if (socket !== this.socket) return;
      if (typeof data === "string") {
        this.wait = FIRST_WAIT;
        this.on.json(JSON.parse(data));
      } else this.on.binary(data);
    };
    socket.onclose = (event) => {
      if (socket === this.socket) this.closed(event);
    };
  }

  closed({code, reason}) {
    this.socket = null;
    if (code === CLOSE_IDLE || code === CLOSE_RATE) {
      this.on.lost(`The server ended the connection: ${reason}.`, false);
      return;
    }
    const full = code === CLOSE_FULL;
    this.on.lost(full ? `No place is free: ${reason}. Trying again.` : "The server does not answer. Trying again.", true);
    this.timer = setTimeout(() => this.connect(), full ? LONGEST_WAIT : this.wait);
    this.wait = Math.min(LONGEST_WAIT, this.wait * 1.6);
  }

  get open() {
    return this.socket !== null && this.socket.readyState === WebSocket.OPEN;
  }

  send(fields) {
    if (this.open) this.socket.send(JSON.stringify(fields));
    return this.open;
  }
}
