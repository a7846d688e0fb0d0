// The page of a motion model: sensors to windows to answers.

import { WindowStream } from "../signal/windows.mjs";
import { element, showAnswer, showError, showStatus } from "./answer.mjs";
import { askForMotion, onIos, rowOf } from "./motion.mjs";
import { Recording } from "./recording.mjs";
import { Trace } from "./trace.mjs";

const LISTENING = "Listening. Hold or wear the phone as in training; lying flat, screen up, z reads +9.8.";
const FEW_MEASURED = "too few samples measured";

export class ImuPage {
  constructor(settings, model) {
    Object.assign(this, { settings, model, running: false });
    this.ios = onIos(navigator);
    this.listener = (event) => this.take(event);
    element("motion").hidden = false;
    element("start").addEventListener("click", () => (this.running ? this.stop() : this.start()).catch(showError));
    element("download").addEventListener("click", () => this.recording.download("recording.csv"));
  }

  async start() {
    await askForMotion();
    const { channels } = this.settings.stream;
    this.stream = new WindowStream(this.settings.stream);
    this.recording = new Recording(channels);
    this.trace = new Trace(element("trace"), [0, 1, 2].filter((column) => column < channels.length));
    this.answered = Promise.resolve();
    this.running = true;
    this.heard = 0;
    window.addEventListener("devicemotion", this.listener);
    element("start").textContent = "Stop";
    element("download").disabled = true;
    showStatus("Waiting for the sensors.");
  }

  async stop() {
    window.removeEventListener("devicemotion", this.listener);
    this.running = false;
    element("start").textContent = "Start";
    element("download").disabled = this.heard === 0;
    if (this.heard) this.answer(this.stream.flush());
    await this.answered;
    showStatus(`Stopped after ${this.heard} samples.`);
  }

  /** Another task is active: the next window is answered by it. */
  switched() {}

  /** Take one motion event. */
  take(event) {
    const timeS = event.timeStamp * 0.001;
    const { channels } = this.settings.stream;
    const row = rowOf(event, channels, this);
    const missing = channels.filter((_, column) => Number.isNaN(row[column]));
    if (missing.length && !this.heard) showStatus(`This device does not measure ${missing.join(", ")}.`);
    if (missing.length === channels.length) return; // a desktop's browser sends one such event
    if (!missing.length && !this.heard) showStatus(LISTENING);
    try {
      this.heard += 1;
      this.recording.add(timeS, row);
      this.trace.add(timeS, row);
      element("reading").textContent = row.map((value) => value.toFixed(1)).join("  ");
      this.answer(this.stream.push(timeS, row));
    } catch (error) {
      this.stop().catch(showError);
      showError(error);
    }
  }

  /** Answer windows in order, one after the other. */
  answer(items) {
    for (const item of items) {
      this.answered = this.answered.then(() => this.#answerOne(item)).catch(showError);
    }
  }

  async #answerOne({ values, measured, ...item }) {
    if (values) {
      const few = measured < this.settings.stream.min_valid;
      Object.assign(item, few ? { note: FEW_MEASURED } : await this.model.classify(values));
    }
    showAnswer(item, this.model);
    document.dispatchEvent(new CustomEvent("answer", { detail: item }));
  }
}
