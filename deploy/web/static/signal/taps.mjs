// The anti-alias filter: imu_saga.signal.resample.low_pass_taps (a Kaiser window, Oppenheim & Schafer ch. 7).

import { PASSBAND, STOPBAND_DB } from "./constants.mjs";

/** Return the taps of up / down in lowest terms; every up-th tap sums to 1 / up. */
export function lowPassTaps(up, down) {
  if (up === down) return new Float64Array([1]);
  const longer = Math.max(up, down);
  const count = Math.ceil((STOPBAND_DB - 7.95) / 2.285 / (Math.PI * ((1 - PASSBAND) / longer)) + 1) | 1;
  const taps = windowedSinc(count, (1 + PASSBAND) / 2 / longer, 0.1102 * (STOPBAND_DB - 8.7));
  const sums = new Float64Array(up);
  taps.forEach((tap, index) => (sums[index % up] += tap));
  return taps.map((tap, index) => tap / (up * sums[index % up]));
}

/** Return `count` taps of a low pass at `cutoff` of the Nyquist frequency, gain 1 at 0 Hz. */
function windowedSinc(count, cutoff, beta) {
  const middle = (count - 1) / 2;
  const peak = besselI0(beta);
  const taps = Float64Array.from({ length: count }, (_, index) => {
    const place = index - middle;
    const inside = Math.sqrt(Math.max(0, 1 - (place / middle) ** 2));
    return (cutoff * sinc(cutoff * place) * besselI0(beta * inside)) / peak;
  });
  const gain = taps.reduce((sum, tap) => sum + tap, 0);
  return taps.map((tap) => tap / gain);
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Return the modified Bessel function I0 by its power series (Abramowitz & Stegun 9.6.12). */
function besselI0(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > sum * 1e-17; k += 1) {
    term *= (x / 2 / k) ** 2;
    sum += term;
  }
  return sum;
}
