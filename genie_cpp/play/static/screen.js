// Pictures {width, height, rgb} on canvases.

export function paint(canvas, picture, before = null) {
  const {width, height, rgb} = picture;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const image = new ImageData(width, height);
  const same = before && before.rgb.length === rgb.length ? before.rgb : null;
  for (let i = 0, o = 0; i < rgb.length; i += 3, o += 4) {
    let shade = 1;
    if (same) {
      const change = Math.abs(rgb[i] - same[i]) + Math.abs(rgb[i + 1] - same[i + 1]) + Math.abs(rgb[i + 2] - same[i + 2]);
      shade = change > 36 ? 1 : 0.3;
    }
    image.data[o] = rgb[i] * shade;
    image.data[o + 1] = rgb[i + 1] * shade;
    image.data[o + 2] = rgb[i + 2] * shade;
    image.data[o + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// Shows the canvas as large as its box allows with every pixel a whole number of the screen's.
export function keepCrisp(canvas, box) {
  const fit = () => {
    const density = window.devicePixelRatio || 1;
    const room = Math.min(box.clientWidth / canvas.width, box.clientHeight / canvas.height) * density;
    const scale = room >= 1 ? Math.floor(room) : room;
    canvas.style.width = `${canvas.width * scale / density}px`;
    canvas.style.height = `${canvas.height * scale / density}px`;
  };
  new ResizeObserver(fit).observe(box);
  new MutationObserver(fit).observe(canvas, {attributeFilter: ["width", "height"]});
  fit();
}

export const hue = (action, count) => Math.round(360 * action / count + 230) % 360;
