"""JavaScript for onnxruntime-web, or onnxruntime-node: a module without imports of its own."""

import json

from deploy.manifest import Manifest
from deploy.snippet import SNIPPETS, Filled, Snippet, facts, feed_of

_MODULE = Filled("""\
@comment
//
// import * as ort from "onnxruntime-web"; // or "onnxruntime-node"; 1.20 or newer
// import { MODEL_FILE, Model } from "./snippet.js";
// const model = await Model.load(ort, MODEL_FILE);
// const { label, probability } = await model.answer(input);

export const MODEL_FILE = @file;
export const INPUT = { name: @input, dtype: @dtype, dims: [@shape] };
export const OUTPUT = @output;
export const CLASSES = @classes;
export const PREPROCESSING = @preprocessing;
@feed
export class Model {
  constructor(ort, session) {
    Object.assign(this, { ort, session });
  }

  /** `source`: address of the model file, or its bytes as a Uint8Array. */
  static async load(ort, source) {
    return new Model(ort, await ort.InferenceSession.create(source));
  }

  /** Return the logits of one input, a @array; `dims` differs where an axis is free. */
  async logits(input, dims = INPUT.dims) {
    const count = dims.reduce((product, size) => product * size, 1);
    if (input.length !== count) throw new Error(`the input must have ${count} values, got ${input.length}`);
    const found = await this.session.run({ [INPUT.name]: new this.ort.Tensor(INPUT.dtype, input, dims) });
    return found[OUTPUT].data;
  }

  /** Return the first class of one input and its probability. */
  async answer(input, dims = INPUT.dims) {
    const logits = await this.logits(input, dims);
    const largest = Math.max(...logits);
    const total = logits.reduce((sum, value) => sum + Math.exp(value - largest), 0);
    return { label: CLASSES[logits.indexOf(largest)], probability: 1 / total };
  }
}
""")
_FEEDS = {
    "image": """
/** Return the input of an image already resized and cropped: levels from 0 to 255, row by row, channels last. */
export function inputOf(levels) {
  const { mean, std, scale } = PREPROCESSING;
  const area = levels.length / mean.length;
  return Float32Array.from(levels, (_, place) => {
    const [channel, pixel] = [Math.floor(place / area), place % area];
    return (levels[pixel * mean.length + channel] * scale - mean[channel]) / std[channel];
  });
}
""",
    "window": """
/** Return the input of samples at the model's rate, in order of time, each an array of the channels in their order. */
export function inputOf(samples) {
  return Float32Array.from(samples.flatMap((row) => [...row]));
}
""",
    "": "",
}
_ARRAYS = {"float32": "Float32Array", "uint8": "Uint8Array"}


@SNIPPETS.register("javascript")
class JavaScript(Snippet):
    """A module for browsers and node; the tests run it."""

    file_name = "snippet.js"

    def text(self, manifest: Manifest) -> str:
        """Return the module's source."""
        array, feed = _ARRAYS[manifest.input.dtype], _FEEDS[feed_of(manifest)]
        return _MODULE.substitute(
            {
                **facts(manifest, json.dumps),
                "preprocessing": json.dumps(manifest.preprocessing),
                "dtype": json.dumps(manifest.input.dtype),
                "array": array,
                "feed": feed,
            }
        )
