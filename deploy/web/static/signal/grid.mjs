// One stretch interpolated at whole periods: the grid of imu_saga.streaming.clock.

import { MIN_STRETCH, MISSING_PERIODS, NODES } from "./constants.mjs";

export class Grid {
  constructor() {
    this.knots = []; // {place, row, real}: samples, and points on the straight line across gaps
    this.next = this.received = 0;
  }

  /** Count one row received and, unless `place` is null, take it at that place [periods]; return {rows, valid}. */
  push(place, row) {
    this.received += 1;
    if (place !== null) this.#add(place, row);
    if (this.received < MIN_STRETCH || this.knots.length < NODES) return this.#points(0);
    return this.#points(Math.ceil(this.knots[this.knots.length - 2].place) - this.next);
  }

  /** Return what is left; a stretch of fewer than four samples gives nothing. */
  rest() {
    if (this.received < MIN_STRETCH || this.knots.length < NODES) return this.#points(0);
    return this.#points(Math.floor(this.knots[this.knots.length - 1].place + 1e-6) + 1 - this.next);
  }

  #add(place, row) {
    const before = this.knots[this.knots.length - 1];
    const step = before ? place - before.place : 0;
    const extra = step > MISSING_PERIODS ? roundHalfEven(step) - 1 : 0;
    for (let k = 1; k <= extra; k += 1) {
      const part = k / (extra + 1);
      const filled = row.map((value, c) => before.row[c] + part * (value - before.row[c]));
      this.knots.push({ place: before.place + part * step, row: filled, real: false });
    }
    this.knots.push({ place, row, real: true });
  }

  #points(count) {
    const made = { rows: [], valid: [] };
    let left = 0;
    for (let k = 0; k < count; k += 1) {
      const at = this.next + k;
      while (left < this.knots.length - 2 && this.knots[left + 1].place <= at) left += 1;
      made.rows.push(this.#cubic(at, left));
      made.valid.push(near(at, this.knots[left], this.knots[left + 1]));
    }
    if (count > 0) {
      this.next += count;
      this.knots.splice(0, Math.max(0, Math.min(left - 1, this.knots.length - NODES)));
    }
    return made;
  }

  /** Return Lagrange's cubic through the two knots on either side, rounded to float32. */
  #cubic(at, left) {
    const start = Math.min(Math.max(left - 1, 0), this.knots.length - NODES);
    const nodes = this.knots.slice(start, start + NODES);
    const made = new Float64Array(nodes[0].row.length);
    nodes.forEach((one, index) => {
      const others = nodes.filter((_, other) => other !== index);
      const weight = others.reduce((product, o) => product * ((at - o.place) / (one.place - o.place)), 1);
      for (let c = 0; c < made.length; c += 1) made[c] += weight * one.row[c];
    });
    return made.map(Math.fround);
  }
}

function near(at, before, after) {
  const [closeBefore, closeAfter] = [at - before.place <= 0.5, after.place - at <= 0.5];
  return (before.real && after.real) || (before.real && closeBefore) || (after.real && closeAfter);
}

/** Round to the nearest whole number, halves to the even one, as numpy and Python do. */
export function roundHalfEven(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}
