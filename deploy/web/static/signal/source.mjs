// Rate and timing of a device, told from its first samples: imu_saga.streaming.source.settle.

import { MIN_STRETCH, MISSING_PERIODS } from "./constants.mjs";

/** Return {rateHz, timing} of stamps [s] at the start of a stream. */
export function settle(timesS, maxGapS) {
  let newest = -Infinity;
  const stamps = timesS.filter(Number.isFinite).map((time) => (newest = Math.max(newest, time)));
  const steps = differences(stamps);
  const usual = median(steps) || mean(steps);
  const timing = share(steps, (step) => step < usual / 10) > 0.01 ? "even" : "stamps";
  const period = typicalPeriod(steps);
  if (!(period > 0) || maxGapS <= MISSING_PERIODS * period) {
    throw new Error(`the device must send samples more often than every ${maxGapS} s`);
  }
  const rates = stretches(stamps, maxGapS).map((stretch) => measured(stretch, timing, period));
  if (!rates.length) throw new Error(`the device must send ${MIN_STRETCH} samples without a gap of ${maxGapS} s`);
  return { rateHz: rates.reduce((best, each) => (each.count > best.count ? each : best)).rateHz, timing };
}

function stretches(stamps, maxGapS) {
  const found = [[]];
  stamps.forEach((stamp, index) => {
    if (index && stamp - stamps[index - 1] > maxGapS) found.push([]);
    found[found.length - 1].push(stamp);
  });
  return found.filter((stretch) => stretch.length >= MIN_STRETCH);
}

function measured(stretch, timing, period) {
  const shifted = stretch.map((stamp) => stamp - stretch[0]);
  if (timing === "even") {
    const fitted = slope(shifted);
    return { count: stretch.length, rateHz: 1 / (fitted > 0 ? fitted : period) };
  }
  const times = shifted.filter((_, index) => index === 0 || stretch[index] - stretch[index - 1] > period / 10);
  const regular = differences(times).filter((step) => step <= MISSING_PERIODS * period);
  const spacing = regular.length ? mean(regular) : period;
  return { count: Math.floor(times[times.length - 1] / spacing + 1e-6) + 1, rateHz: 1 / spacing };
}

/** Return the slope of the least-squares line through values at 0, 1, 2, ... */
function slope(values) {
  const middle = (values.length - 1) / 2;
  const average = mean(values);
  const [across, along] = values.reduce(
    ([xy, xx], value, index) => [xy + (index - middle) * (value - average), xx + (index - middle) ** 2],
    [0, 0],
  );
  return across / along;
}

/** Return the median step, or where stamps come in batches the mean without the longest 1 %. */
function typicalPeriod(steps) {
  const middle = median(steps);
  if (middle > 0 && share(steps, (step) => step < middle / 10) <= 0.01) return middle;
  const limit = quantile(steps, 0.99);
  return mean(steps.filter((step) => step <= limit));
}

function differences(values) {
  return values.slice(1).map((value, index) => value - values[index]);
}

function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : 0;
}

function share(values, holds) {
  return values.length ? values.filter(holds).length / values.length : 0;
}

function median(values) {
  return quantile(values, 0.5);
}

/** Return a quantile by linear interpolation, as numpy's default. */
function quantile(values, part) {
  if (!values.length) return 0;
  const sorted = Float64Array.from(values).sort();
  const place = part * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}
