// The model in onnxruntime-web, on one thread; an adapter's tensors are further inputs of the same graph.

import * as ort from "../runtime/ort.wasm.bundle.min.mjs";
import { fetchChecked } from "./files.mjs";
import { readTensors } from "./safetensors.mjs";

export class Model {
  /** `settings`: the site's; use Model.load. */
  constructor(settings, session) {
    Object.assign(this, { settings, session });
    this.latenciesMs = [];
  }

  /** Fetch, check and open the model; its first adapter is active. */
  static async load(settings) {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { wasm: new URL("../runtime/ort-wasm-simd-threaded.wasm", import.meta.url).href };
    const session = await ort.InferenceSession.create(await fetchChecked(settings.model));
    const model = new Model(settings, session);
    await model.activate(settings.adapters[0].name);
    return model;
  }

  /** Switch to an adapter: its classes, and its tensors where the bundle keeps them apart. */
  async activate(name) {
    const adapter = this.settings.adapters.find((each) => each.name === name);
    const asked = (this.asked = Symbol(name));
    const tensors = adapter.tensors ? readTensors(await fetchChecked(adapter.tensors)) : {};
    if (this.asked !== asked) return; // another was chosen meanwhile
    const feeds = Object.entries(tensors).map(([key, { shape, values }]) => [key, tensor(values, shape)]);
    this.adapter = adapter;
    this.feeds = Object.fromEntries(feeds);
  }

  get classes() {
    return this.adapter.classes;
  }

  /** Return logits, (rows * classes), of inputs (rows, ...the input's shape); the time goes to latenciesMs. */
  async logits(values, rows = 1) {
    const { name, shape } = this.settings.input;
    const began = performance.now();
    const found = await this.session.run({ ...this.feeds, [name]: tensor(values, [rows, ...shape]) });
    this.latenciesMs = [...this.latenciesMs.slice(-99), performance.now() - began];
    return found[this.settings.output].data;
  }

  /** Return {label, confidence, probabilities, task, classes} of one input. */
  async classify(values) {
    const { name, classes } = this.adapter; // another may be active when the answer comes
    const probabilities = softmax(await this.logits(values));
    const best = probabilities.indexOf(Math.max(...probabilities));
    return { label: classes[best], confidence: probabilities[best], probabilities, task: name, classes };
  }

  /** Run the bundle's golden sample with every adapter; return the largest difference to PyTorch's logits. */
  async checkGolden() {
    const { adapters, golden } = this.settings;
    const { inputs, ...expected } = readTensors(await fetchChecked(golden));
    let largest = 0;
    for (const { name, logits } of adapters) {
      await this.activate(name);
      const found = await this.logits(inputs.values, inputs.shape[0]);
      const { values } = expected[logits];
      const difference = found.reduce((most, value, k) => Math.max(most, Math.abs(value - values[k])), 0);
      if (!(found.length === values.length && difference <= golden.tolerance)) {
        throw new Error(`this browser's answers for ${name} differ from PyTorch's by ${difference}, more than ${golden.tolerance}`);
      }
      largest = Math.max(largest, difference);
    }
    await this.activate(adapters[0].name);
    this.latenciesMs = []; // of several rows at once
    return largest;
  }

  /** Return the median time of the last runs [ms]. */
  get latencyMs() {
    const sorted = [...this.latenciesMs].sort((a, b) => a - b);
    return sorted[sorted.length >> 1] ?? 0;
  }
}

function tensor(values, shape) {
  return new ort.Tensor("float32", values, shape);
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const exponents = Array.from(logits, (value) => Math.exp(value - largest));
  const total = exponents.reduce((sum, value) => sum + value, 0);
  return exponents.map((value) => value / total);
}
