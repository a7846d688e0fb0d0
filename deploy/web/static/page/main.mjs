// Starts the page: settings, service worker, model, golden sample, then the page of the model's kind.

import { element, showError, showNoAnswer, showStatus } from "./answer.mjs";
import { ImuPage } from "./imu.mjs";
import { Model } from "./model.mjs";
import { VisionPage } from "./vision.mjs";

const PAGES = { imu_saga: ImuPage, vision: VisionPage };

async function main() {
  if (!window.isSecureContext) throw new Error("open this page over https, or on localhost");
  navigator.serviceWorker?.register("worker.js").catch(showError);
  const settings = await (await fetch("settings.json")).json();
  document.title = element("title").textContent = settings.title;
  const model = await Model.load(settings);
  const difference = await model.checkGolden();
  element("checked").textContent = `Golden sample run here: within ${difference.toExponential(1)} of PyTorch.`;
  const page = new PAGES[settings.kind](settings, model);
  offerAdapters(settings.adapters, model, page);
  showNoAnswer(model.classes);
  showStatus("Ready.");
  document.body.dataset.ready = "yes";
}

/** Let the user choose among several adapters; one needs no choice. */
function offerAdapters(adapters, model, page) {
  const choice = element("adapter");
  choice.replaceChildren(...adapters.map(({ name }) => new Option(name, name)));
  element("adapters").hidden = adapters.length < 2;
  choice.addEventListener("change", async () => {
    try {
      await model.activate(choice.value);
      showNoAnswer(model.classes);
      showStatus(`Task ${model.adapter.name}, ${model.classes.length} classes.`);
      await page.switched();
    } catch (error) {
      showError(error);
    }
    choice.value = model.adapter.name;
  });
}

main().catch((error) => {
  showStatus("Could not start.");
  showError(error);
});
