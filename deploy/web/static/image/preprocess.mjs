// From pixels to the model's input as the manifest says: vision.transforms.fit_image and normalise.

import { roundHalfEven } from "../signal/grid.mjs";
import { resizePlane } from "./resize.mjs";

const LARGEST_ASPECT = 16; // of a narrower image only the middle is resized

/** Return the model's input, float32, shape (1, channels, size, size), of RGBA pixels {data, height, width}. */
export function preprocess(image, steps) {
  const planes = steps.channels === 1 ? [greyPlane(image)] : [0, 1, 2].map((channel) => plane(image, channel));
  const area = steps.height_px * steps.width_px;
  const input = new Float32Array(planes.length * area);
  planes.forEach((each, channel) => {
    const { values } = fitted(each, steps, channel);
    const [mean, std] = [Math.fround(steps.mean[channel]), Math.fround(steps.std[channel])];
    for (let k = 0; k < area; k += 1) {
      input[channel * area + k] = Math.fround(Math.fround(values[k] / 255) - mean) / std;
    }
  });
  return input;
}

/** Return one plane resized and cropped, with a border where the manifest asks for one. */
function fitted(original, steps, channel) {
  const target = [steps.height_px, steps.width_px];
  const squeezed = "resize_shorter_side_px" in steps ? middle(original, cappedSize(original)) : original;
  const resized = resizePlane(squeezed, resizedSize(squeezed, steps), steps.interpolation);
  return middle(bordered(resized, target, steps.border_levels?.[channel] ?? 0), target);
}

function cappedSize({ height, width }) {
  return [Math.min(height, LARGEST_ASPECT * width), Math.min(width, LARGEST_ASPECT * height)];
}

/** Return [height, width] an image is resized to before the crop: its shorter, longer or both sides are given. */
function resizedSize({ height, width }, steps) {
  const ends = [height, width];
  if ("resize_both_sides_px" in steps) return [steps.resize_both_sides_px, steps.resize_both_sides_px];
  if ("resize_longer_side_px" in steps) {
    const ratio = Math.max(height, width) / steps.resize_longer_side_px;
    return ends.map((end) => Math.max(1, roundHalfEven(end / ratio)));
  }
  return ends.map((end) => Math.trunc((steps.resize_shorter_side_px * end) / Math.min(...ends)));
}

/** Return the middle [height, width] of a plane. */
function middle(plane, [height, width]) {
  const top = roundHalfEven((plane.height - height) / 2);
  const left = roundHalfEven((plane.width - width) / 2);
  const values = new Uint8ClampedArray(height * width);
  for (let y = 0; y < height; y += 1) {
    const start = (top + y) * plane.width + left;
    values.set(plane.values.subarray(start, start + width), y * width);
  }
  return { values, height, width };
}

/** Return a plane at least as large as the target, with a border of one level around it. */
function bordered(plane, [height, width], level) {
  const lacking = [Math.max(0, height - plane.height), Math.max(0, width - plane.width)];
  if (!lacking.some(Boolean)) return plane;
  const [tall, wide] = [plane.height + lacking[0], plane.width + lacking[1]];
  const values = new Uint8ClampedArray(tall * wide).fill(level);
  for (let y = 0; y < plane.height; y += 1) {
    const row = plane.values.subarray(y * plane.width, (y + 1) * plane.width);
    values.set(row, ((lacking[0] >> 1) + y) * wide + (lacking[1] >> 1));
  }
  return { values, height: tall, width: wide };
}

function plane({ data, height, width }, channel) {
  const values = new Uint8ClampedArray(height * width);
  for (let k = 0; k < values.length; k += 1) values[k] = data[4 * k + channel];
  return { values, height, width };
}

/** Return the luminance (ITU-R BT.601, torchvision's digits and its cutting off of the part of a level). */
function greyPlane({ data, height, width }) {
  const values = new Uint8ClampedArray(height * width);
  for (let k = 0; k < values.length; k += 1) {
    const [red, green, blue] = data.subarray(4 * k, 4 * k + 3);
    const alike = red === green && green === blue; // a grey file stays as it is
    values[k] = alike ? red : Math.floor(Math.fround(0.2989 * red + 0.587 * green + 0.114 * blue));
  }
  return { values, height, width };
}
