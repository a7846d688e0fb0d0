// The clock of a stream: imu_saga.streaming.clock.StreamClock, one sample at a time.

import { SAME_PERIODS } from "./constants.mjs";
import { Grid } from "./grid.mjs";

export class StreamClock {
  /** `timing`: "stamps" interpolates between true times, "even" takes a stretch's samples as equally spaced. */
  constructor(rateHz, maxGapS, timing) {
    Object.assign(this, { rateHz, maxGapS, timing });
    this.received = 0;
    this.newestS = null;
    this.grid = new Grid();
  }

  /** Take a sample; return pieces {rows, valid, startS}, startS a number where a stretch begins with the piece. */
  push(timeS, row) {
    const number = this.received;
    this.received += 1;
    if (!Number.isFinite(timeS) || !row.every(Number.isFinite)) return [];
    const pieces = [];
    if (this.newestS === null || Math.abs(timeS - this.newestS) > this.maxGapS) {
      pieces.push(...this.flush(), { rows: [], valid: [], startS: timeS });
      this.newestS = timeS - this.maxGapS / 2; // the sample itself is new
      this.startS = timeS;
      this.startNumber = number;
    }
    const fresh = this.timing === "even" || timeS - this.newestS > SAME_PERIODS / this.rateHz;
    const place = this.timing === "even" ? number - this.startNumber : (timeS - this.startS) * this.rateHz;
    this.newestS = Math.max(this.newestS, timeS);
    pieces.push({ ...this.grid.push(fresh ? place : null, row), startS: null });
    return pieces;
  }

  /** Return what is left of the stretch; the next sample begins another one. */
  flush() {
    const rest = this.grid.rest();
    this.grid = new Grid();
    this.newestS = null;
    return rest.rows.length ? [{ ...rest, startS: null }] : [];
  }
}
