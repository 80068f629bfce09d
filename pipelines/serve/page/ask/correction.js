// Telling the service the true label of what it answered, for it to learn from.

import { Refused, call } from "./api.js";
import { element } from "./dom.js";

/** A form for the true label of the first item of request `id`; `input` is what was asked, sent along only if wanted. */
export function correction(labels, id, input) {
  const choice = element("select", { required: "" }, ...labels.map((label) => new Option(label, label)));
  const along = element("input", { type: "checkbox" });
  const outcome = element("p", { class: "note", role: "status" });
  const form = element(
    "form",
    {},
    element("label", {}, "True label ", choice),
    input.text === undefined ? null : element("label", { class: "check" }, along, " with the text, to learn from it"),
    element("button", { type: "submit", class: "plain" }, "Save"),
    outcome,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    outcome.textContent = await saved(id, { item: 0, label: choice.value, ...(along.checked ? { text: input.text, task: input.task } : {}) });
  });
  return element("details", { class: "correction" }, element("summary", {}, "Not right? Say what is"), form);
}

async function saved(id, label) {
  try {
    await call("v1/feedback", { body: { request_id: id, labels: [label] } });
    return "Stored for good.";
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return error.message;
  }
}
