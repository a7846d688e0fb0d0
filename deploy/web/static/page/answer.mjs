// What the page says: one answer aloud, every class as a bar, the latency.

export const percent = (part) => `${Math.round(100 * part)} %`;

export function element(id) {
  return document.getElementById(id);
}

/** Show an answer {label, confidence, probabilities}, or a note where there is none; screen readers say it. */
export function showAnswer({ label, confidence, probabilities, note, classes }, model) {
  element("label").textContent = note || label;
  element("confidence").textContent = note ? "" : percent(confidence);
  element("latency").textContent = model.latenciesMs.length ? `The model took ${model.latencyMs.toFixed(1)} ms (median).` : "";
  showBars(classes ?? model.classes, probabilities ?? []);
}

/** Show that there is no answer yet of these classes. */
export function showNoAnswer(classes) {
  element("label").textContent = "No answer yet";
  element("confidence").textContent = "";
  showBars(classes, []);
}

/** Show every class with a bar as long as its probability. */
export function showBars(classes, probabilities) {
  element("bars").replaceChildren(
    ...classes.map((name, index) => {
      const row = document.createElement("li");
      const bar = document.createElement("meter");
      bar.value = probabilities[index] ?? 0;
      bar.setAttribute("aria-label", name);
      const share = probabilities.length ? percent(probabilities[index]) : "";
      row.append(text("span", name), bar, text("span", share));
      return row;
    }),
  );
}

export function showStatus(line) {
  element("status").textContent = line;
}

export function showError(error) {
  element("error").textContent = error.message ?? String(error);
  element("error").hidden = false;
}

function text(tag, content) {
  const made = document.createElement(tag);
  made.textContent = content;
  return made;
}
