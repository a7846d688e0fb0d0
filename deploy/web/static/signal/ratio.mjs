// The ratio of two rates as whole numbers: imu_saga.signal.resample.rational_ratio.

import { HORIZON, MAX_DRIFT, TERMS } from "./constants.mjs";

/** Return [up, down], newHz / oldHz in lowest terms, exact enough for HORIZON samples. */
export function rationalRatio(oldHz, newHz) {
  const exact = newHz / oldHz;
  const largest = TERMS[TERMS.length - 1];
  if (!(exact >= 1 / largest && exact <= largest)) {
    throw new Error(`the model's ${newHz} samples/s must be within a factor of ${largest} of the device's ${oldHz}`);
  }
  let ratio = [1, 1];
  for (const limit of TERMS) {
    const nearest = nearestFraction(Math.min(exact, 1 / exact), limit);
    const small = nearest[0] ? nearest : [1, limit];
    ratio = exact < 1 ? small : small.reverse();
    if (Math.abs(ratio[0] / ratio[1] / exact - 1) * HORIZON <= MAX_DRIFT) break;
  }
  return ratio;
}

/** Return [numerator, denominator] nearest to a positive double, the denominator at most `limit`. */
function nearestFraction(value, limit) {
  const most = BigInt(limit);
  const [numerator, denominator] = exactFraction(value);
  if (denominator <= most) return [Number(numerator), Number(denominator)];
  let [p0, q0, p1, q1] = [0n, 1n, 1n, 0n];
  let [n, d] = [numerator, denominator];
  for (;;) {
    const whole = n / d;
    const q2 = q0 + whole * q1;
    if (q2 > most) break;
    [p0, q0, p1, q1] = [p1, q1, p0 + whole * p1, q2];
    [n, d] = [d, n - whole * d];
  }
  const k = (most - q0) / q1;
  const convergent = 2n * d * (q0 + k * q1) <= denominator;
  return convergent ? [Number(p1), Number(q1)] : [Number(p0 + k * p1), Number(q0 + k * q1)];
}

/** Return a double as numerator and denominator: doubling it is exact. */
function exactFraction(value) {
  let denominator = 1n;
  while (!Number.isInteger(value)) {
    value *= 2;
    denominator *= 2n;
  }
  return [BigInt(value), denominator];
}
