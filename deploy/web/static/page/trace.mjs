// A live trace of the accelerometer on a canvas, in the page's own colours.

const SECONDS = 6;

export class Trace {
  constructor(canvas, columns) {
    Object.assign(this, { canvas, columns, samples: [], waiting: false });
  }

  add(timeS, row) {
    this.samples.push([timeS, this.columns.map((column) => row[column])]);
    while (this.samples[0][0] < timeS - SECONDS) this.samples.shift();
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.waiting = false;
    const { canvas, samples } = this;
    const scale = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const newest = samples[samples.length - 1][0];
    const reach = samples.reduce((most, [, row]) => Math.max(most, ...row.map((v) => Math.abs(v) || 0)), 12);
    const x = (time) => canvas.width * (1 - (newest - time) / SECONDS);
    const y = (value) => (canvas.height / 2) * (1 - value / reach);
    line(context, style.getPropertyValue("--line"), scale, [[0, y(0)], [canvas.width, y(0)]]);
    this.columns.forEach((_, axis) => {
      const points = samples.map(([time, row]) => [x(time), y(row[axis])]);
      line(context, style.getPropertyValue(`--axis-${axis}`), 2 * scale, points);
    });
  }
}

function line(context, colour, width, points) {
  context.beginPath();
  context.strokeStyle = colour;
  context.lineWidth = width;
  points.forEach(([px, py], index) => (index ? context.lineTo(px, py) : context.moveTo(px, py)));
  context.stroke();
}
