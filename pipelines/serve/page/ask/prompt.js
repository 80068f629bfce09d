// What the large model is shown of an input.

import { element } from "./dom.js";

/** The title of the section: an input that was kept was never shown. */
export function promptTitle({ escalated }) {
  return escalated ? "What the large model saw" : "What the large model would have seen";
}

/** The question of an explained input. */
export function prompt({ messages, escalated }) {
  return element(
    "div",
    {},
    element("p", { class: "note" }, escalated ? "" : "This input stayed with the small model. ", reading(messages)),
    ...messages.map(({ role, content }) => element("figure", { class: "message" },
      element("figcaption", {}, role), element("pre", { tabindex: 0, role: "region", "aria-label": `Message of the ${role}` }, content))),
  );
}

function reading(messages) {
  if (messages.length === 0) return "This large model is a classifier: it reads the input, and no instructions.";
  return messages[0].role === "label" ? "It compares the input with a prompt for each label." : "It reads the question alone, without a word of the small model.";
}
