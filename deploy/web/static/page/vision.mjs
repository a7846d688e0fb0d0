// The page of an image model: a file, or the camera's present picture.

import { pixelsOf } from "../image/picture.mjs";
import { preprocess } from "../image/preprocess.mjs";
import { element, showAnswer, showError, showStatus } from "./answer.mjs";

export class VisionPage {
  constructor(settings, model) {
    Object.assign(this, { settings, model, camera: null, input: null });
    element("vision").hidden = false;
    element("file").addEventListener("change", ({ target }) => this.file(target.files[0]).catch(showError));
    element("camera").addEventListener("click", () => this.toggleCamera().catch(showError));
    element("video").addEventListener("loadeddata", () => (element("shoot").disabled = !this.camera));
    element("shoot").addEventListener("click", () => this.classify(element("video")).catch(showError));
  }

  async file(blob) {
    if (!blob) return;
    const shown = element("picture");
    URL.revokeObjectURL(shown.src);
    shown.src = URL.createObjectURL(blob);
    shown.alt = `Chosen picture: ${blob.name ?? "without a name"}`;
    shown.hidden = false;
    await this.classify(blob);
  }

  /** Start the camera, or hand it back. */
  async toggleCamera() {
    const video = element("video");
    if (this.camera) {
      this.camera.getTracks().forEach((track) => track.stop());
      this.camera = null;
    } else {
      if (!navigator.mediaDevices) throw new Error("the camera needs an https address");
      this.camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    }
    video.srcObject = this.camera;
    video.hidden = !this.camera;
    element("shoot").disabled = true; // until the camera has sent a picture
    element("camera").textContent = this.camera ? "Stop camera" : "Start camera";
  }

  /** Classify a Blob or the video's present picture. */
  async classify(source) {
    showStatus("Looking.");
    this.input = preprocess(await pixelsOf(source), this.settings.preprocessing);
    await this.#answer(this.input);
    showStatus("Ready.");
  }

  /** Another task is active: it answers the last picture, too. */
  async switched() {
    if (this.input) await this.#answer(this.input);
  }

  async #answer(input) {
    const answer = await this.model.classify(input);
    showAnswer(answer, this.model);
    document.dispatchEvent(new CustomEvent("answer", { detail: { ...answer, input } }));
  }
}
