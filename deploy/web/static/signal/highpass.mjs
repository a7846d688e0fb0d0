// Gravity taken out: imu_saga.signal.gravity.CausalHighPass. The coefficients come from Python, with the site.

export class CausalHighPass {
  /** `sections`: [b0, b1, b2, a0, a1, a2] each; `settled`: a section's two states after a constant 1. */
  constructor({ sections, settled }, columns) {
    Object.assign(this, { sections, settled, columns });
    this.state = null;
  }

  /** Filter these columns of a row in place; the result is rounded to float32. */
  apply(row) {
    this.state ??= this.columns.map((column) => this.settled.map((pair) => pair.map((value) => value * row[column])));
    this.columns.forEach((column, index) => {
      row[column] = Math.fround(this.#filter(row[column], this.state[index]));
    });
  }

  /** Forget the past: the next row counts as having lasted for ever. */
  reset() {
    this.state = null;
  }

  #filter(value, state) {
    this.sections.forEach(([b0, b1, b2, , a1, a2], section) => {
      const past = state[section];
      const made = b0 * value + past[0];
      past[0] = b1 * value - a1 * made + past[1];
      past[1] = b2 * value - a2 * made;
      value = made;
    });
    return value;
  }
}
