// Antialiased resizing of 8-bit pixels as torch does it on a CPU: fixed-point weights, rounded after each pass.
// Source: torch's _upsample_{bilinear,bicubic}2d_aa on uint8, itself Pillow's resampling with 16-bit weights.

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: (x) => cubic(Math.abs(x)) },
};
const CUBIC_A = -0.5; // as Pillow; Keys (1981)

/** Resize one plane {values: Uint8ClampedArray, height, width} to [height, width] px. */
export function resizePlane(plane, [height, width], interpolation) {
  if (plane.height === height && plane.width === width) return plane;
  if (interpolation === "nearest") return nearest(plane, height, width);
  const across = alongRows(plane, width, FILTERS[interpolation]);
  return transposed(alongRows(transposed(across), height, FILTERS[interpolation]));
}

function cubic(x) {
  if (x < 1) return ((CUBIC_A + 2) * x - (CUBIC_A + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * CUBIC_A : 0;
}

function nearest({ values, height, width }, newHeight, newWidth) {
  const made = new Uint8ClampedArray(newHeight * newWidth);
  const source = (place, from, to) => Math.min(Math.floor(Math.fround(place * Math.fround(from / to))), from - 1);
  for (let y = 0; y < newHeight; y += 1) {
    const row = source(y, height, newHeight) * width;
    for (let x = 0; x < newWidth; x += 1) made[y * newWidth + x] = values[row + source(x, width, newWidth)];
  }
  return { values: made, height: newHeight, width: newWidth };
}

/** Resize every row to `size`; the same width comes back as it is. */
function alongRows(plane, size, filter) {
  if (plane.width === size) return plane;
  const { values, height, width } = plane;
  const { branches, precision } = fixedPointWeights(width, size, filter);
  const half = 2 ** (precision - 1);
  const made = new Uint8ClampedArray(height * size);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < size; x += 1) {
      const { first, weights } = branches[x];
      let sum = half;
      for (let k = 0; k < weights.length; k += 1) sum += values[y * width + first + k] * weights[k];
      made[y * size + x] = Math.floor(sum / 2 ** precision); // the array clamps to 0..255
    }
  }
  return { values: made, height, width: size };
}

/** Return each output's first input and whole-number weights, and how many bits they are scaled by. */
function fixedPointWeights(from, to, { support, weight }) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const branches = Array.from({ length: to }, (_, output) => {
    const center = scale * (output + 0.5);
    const first = Math.max(Math.trunc(center - support * stretch + 0.5), 0);
    const last = Math.min(Math.trunc(center + support * stretch + 0.5), from);
    const raw = Array.from({ length: last - first }, (_, k) => weight((k + first - center + 0.5) / stretch));
    const total = raw.reduce((sum, value) => sum + value, 0);
    return { first, weights: raw.map((value) => value / total) };
  });
  const largest = branches.reduce((most, { weights }) => Math.max(most, ...weights), 0);
  let precision = 0;
  while (precision < 22 && Math.trunc(0.5 + largest * 2 ** (precision + 1)) < 2 ** 15) precision += 1;
  const fixed = (value) => Math.trunc(value * 2 ** precision + (value < 0 ? -0.5 : 0.5));
  return { branches: branches.map(({ first, weights }) => ({ first, weights: weights.map(fixed) })), precision };
}

function transposed({ values, height, width }) {
  const made = new Uint8ClampedArray(values.length);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) made[x * height + y] = values[y * width + x];
  }
  return { values: made, height: width, width: height };
}
