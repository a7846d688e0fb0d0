// Samples in, windows out: imu_saga.streaming.classifier.StreamClassifier up to the model.

import { StreamClock } from "./clock.mjs";
import { CausalHighPass } from "./highpass.mjs";
import { rationalRatio } from "./ratio.mjs";
import { StreamResampler } from "./resampler.mjs";
import { settle } from "./source.mjs";

export const GAP = "gap";
export const TOO_SHORT = "shorter than a window";

/**
 * Windows of a stream at the model's rate.
 *
 * `options`: rate_hz, samples, hop, channels, high_pass (or null), max_gap_s, settle_samples; as the site's
 * settings hold them. Pushed times are in seconds, rows hold one value for each of the options' channels.
 */
export class WindowStream {
  constructor(options) {
    this.options = options;
    const acc = options.channels.flatMap((name, column) => (name.startsWith("acc_") ? [column] : []));
    this.highPass = options.high_pass ? new CausalHighPass(options.high_pass, acc) : null;
    this.waiting = [];
    this.source = null;
  }

  /** Take a sample; return the windows it completes and the silences it reveals, in order of time. */
  push(timeS, row) {
    const sample = [timeS, Float64Array.from(row)];
    if (this.source) return this.#samples([sample]);
    this.waiting.push(sample);
    return this.waiting.length < this.options.settle_samples ? [] : this.#settled();
  }

  /** Return what is complete without a further sample; the stream is then over. */
  flush() {
    const found = this.source || !this.waiting.length ? [] : this.#settled();
    if (!this.source) return found;
    this.ready = [];
    for (const piece of this.clock.flush()) this.#cut(this.resampler.push(piece.rows, piece.valid));
    this.#endStretch();
    return [...found, ...this.ready];
  }

  #settled() {
    const { max_gap_s: maxGapS, rate_hz: rateHz, channels } = this.options;
    const known = this.waiting.filter(([time, row]) => Number.isFinite(time) && row.every(Number.isFinite));
    this.source = settle(known.map(([time]) => time), maxGapS);
    this.clock = new StreamClock(this.source.rateHz, maxGapS, this.source.timing);
    this.resampler = new StreamResampler(...rationalRatio(this.source.rateHz, rateHz), channels.length);
    this.#clear();
    this.endS = null; // of the last stretch that gave samples
    return this.#samples(this.waiting.splice(0));
  }

  #clear() {
    this.rows = [];
    this.valid = [];
    this.first = this.next = this.made = 0; // buffer's start, next window's start, samples made in the stretch
    this.startS = null;
  }

  #samples(samples) {
    this.ready = [];
    for (const [timeS, row] of samples) {
      for (const piece of this.clock.push(timeS, row)) {
        if (piece.startS !== null) {
          this.#endStretch();
          this.startS = piece.startS;
        }
        this.#cut(this.resampler.push(piece.rows, piece.valid));
      }
    }
    return this.ready;
  }

  /** Let the filters run out and forget the stretch. */
  #endStretch() {
    if (this.startS === null) return;
    this.#cut(this.resampler.flush());
    if (this.made) {
      this.endS = this.startS + this.made / this.options.rate_hz;
      if (this.made < this.options.samples) this.#silence(this.startS, this.endS, TOO_SHORT);
    }
    this.#clear();
    this.highPass?.reset();
  }

  #silence(startS, endS, note) {
    this.ready.push({ startS, endS, note });
  }

  #cut({ rows, valid }) {
    const { rate_hz: rateHz, samples, hop } = this.options;
    if (!rows.length) return;
    if (!this.made && this.endS !== null && this.startS > this.endS) this.#silence(this.endS, this.startS, GAP);
    if (this.highPass) rows.forEach((row) => this.highPass.apply(row));
    this.made += rows.length;
    this.rows.push(...rows);
    this.valid.push(...valid);
    while (this.next + samples <= this.made) {
      const from = this.next - this.first;
      const window = this.rows.slice(from, from + samples);
      const startS = this.startS + this.next / rateHz;
      const measured = this.valid.slice(from, from + samples).filter(Boolean).length / samples;
      const values = Float32Array.from(window.flatMap((row) => [...row]));
      this.ready.push({ startS, endS: startS + samples / rateHz, note: "", values, measured });
      this.next += hop;
    }
    const dropped = Math.min(this.next - this.first, this.rows.length);
    this.rows.splice(0, dropped);
    this.valid.splice(0, dropped);
    this.first += dropped;
  }
}
