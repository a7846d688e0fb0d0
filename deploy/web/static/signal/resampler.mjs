// Resampling of a stream: imu_saga.streaming.resample.StreamResampler. Rows are Float64Arrays, one value a channel.

import { lowPassTaps } from "./taps.mjs";

export class StreamResampler {
  /** Resample by up / down, in lowest terms; `columns` channels. */
  constructor(up, down, columns) {
    Object.assign(this, { up, down, columns });
    const taps = lowPassTaps(up, down);
    const half = taps.length >> 1;
    this.delay = Math.ceil(half / up);
    this.width = 2 * this.delay + 1;
    this.branches = Array.from({ length: up }, (_, phase) =>
      Float64Array.from({ length: this.width }, (_, k) => (taps[phase + half + (this.delay - k) * up] ?? 0) * up),
    );
    this.reset();
  }

  reset() {
    this.rows = [];
    this.valid = [];
    this.first = this.received = this.made = 0; // `first`: input position of rows[0]
  }

  /** Take the next rows and return {rows, valid} that can be computed. */
  push(rows, valid) {
    const started = this.received > this.delay;
    this.rows.push(...rows);
    this.valid.push(...valid);
    this.received += rows.length;
    if (this.received <= this.delay) return { rows: [], valid: [] };
    if (!started) this.#extendBefore();
    return this.#outputs(this.#ready(this.received - this.delay));
  }

  /** Return what is left; the next row starts afresh. */
  flush() {
    if (this.received) {
      const last = this.received - 1 - this.first;
      const tail = this.rows.slice(Math.max(0, last - this.delay), last + 1);
      const after = range(1, this.delay + 1).map((k) => reflected(tail, k + Math.max(1, tail.length - 1)));
      if (this.received <= this.delay) this.#extendBefore();
      this.rows.push(...after);
      this.valid.push(...after.map(() => true));
    }
    const left = this.#outputs(this.#ready(this.received));
    this.reset();
    return left;
  }

  #ready(inputs) {
    return Math.ceil((inputs * this.up) / this.down);
  }

  #extendBefore() {
    const before = range(-this.delay, 0).map((k) => reflected(this.rows, k));
    this.rows.unshift(...before);
    this.valid.unshift(...before.map(() => true));
    this.first -= before.length;
  }

  #outputs(until) {
    const made = { rows: [], valid: [] };
    for (let output = this.made; output < until; output += 1) {
      made.rows.push(this.#value(output * this.down));
      made.valid.push(this.#measured(output * this.down));
    }
    if (until > this.made) this.#forget(until);
    return made;
  }

  /** Return one row, rounded to float32; `place` in 1 / up of an input sample. */
  #value(place) {
    const start = Math.floor(place / this.up) - this.delay - this.first;
    const branch = this.branches[place % this.up];
    const sums = new Float64Array(this.columns);
    for (let k = 0; k < this.width; k += 1) {
      for (let c = 0; c < this.columns; c += 1) sums[c] += this.rows[start + k][c] * branch[k];
    }
    return sums.map(Math.fround);
  }

  /** Tell whether all inputs within one period, the longer of the two, were measured. */
  #measured(place) {
    const span = this.up === this.down ? 0 : Math.max(this.up, this.down);
    const inside = (position) => Math.min(Math.max(position - this.first, 0), this.valid.length - 1);
    const last = inside(Math.floor((place + span) / this.up));
    for (let k = inside(Math.ceil((place - span) / this.up)); k <= last; k += 1) if (!this.valid[k]) return false;
    return true;
  }

  #forget(until) {
    this.made = until;
    const needed = Math.floor((until * this.down) / this.up) - this.delay - this.first;
    const dropped = Math.max(0, Math.min(needed, this.rows.length - this.delay - 1)); // flush reflects the last ones
    this.rows.splice(0, dropped);
    this.valid.splice(0, dropped);
    this.first += dropped;
  }
}

function range(start, stop) {
  return Array.from({ length: Math.max(0, stop - start) }, (_, k) => start + k);
}

/** Return the row at any position of a signal continued by odd reflection: x(-k) = 2 x(0) - x(k), without end. */
function reflected(rows, position) {
  if (rows.length === 1) return rows[0];
  const end = rows.length - 1;
  const turn = Math.floor(position / (2 * end));
  const at = position - turn * 2 * end;
  return rows[0].map((first, c) => {
    const last = rows[end][c];
    const mirrored = at <= end ? rows[at][c] : 2 * last - rows[2 * end - at][c];
    return mirrored + 2 * turn * (last - first);
  });
}
