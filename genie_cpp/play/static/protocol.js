// The server's binary messages; genie_cpp/play/protocol.py describes them.

export const FRAME = 0, PREVIEW = 1, EPISODE = 2, FILE = 3;
export const CLOSE_IDLE = 4000, CLOSE_FULL = 4001, CLOSE_RATE = 4002;
const HEADER = 16, NO_ACTION = 255;

export function unpack(buffer) {
  const view = new DataView(buffer);
  const action = view.getUint8(1);
  return {
    kind: view.getUint8(0),
    action: action === NO_ACTION ? null : action,
    width: view.getUint16(2, true),
    height: view.getUint16(4, true),
    count: view.getUint16(6, true),
    number: view.getUint32(8, true),
    seconds: view.getUint32(12, true) / 1e6,
    content: new Uint8Array(buffer, HEADER),
  };
}

// The pictures of a message, each {width, height, rgb}.
export function pictures(message) {
  const {width, height, count, content} = message;
  const size = width * height * 3;
  return Array.from({length: count}, (_, i) => ({width, height, rgb: content.subarray(i * size, (i + 1) * size)}));
}
