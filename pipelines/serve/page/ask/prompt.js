// What the large model is shown of an input.

import { element, name } from "./dom.js";
import { percent } from "./formats.js";

const MODES = {
  none: "The question alone, without a word of the small model.",
  soft: "The question, and what the small model suggests.",
  hard: "The question, with only those labels to choose from that the small model cannot be left alone with.",
};

/** The title of the section: an input that was kept was never shown. */
export function promptTitle({ escalated }) {
  return escalated ? "What the large model saw" : "What the large model would have seen";
}

/** The prompt of an explained input. */
export function prompt({ shown, escalated }) {
  return element(
    "div",
    {},
    element("p", { class: "note" }, escalated ? "" : "This input stayed with the small model. ", MODES[shown.mode], " ", reading(shown)),
    suggestions(shown.suggestions),
    ...shown.messages.map(({ role, content }) => element("figure", { class: "message" },
      element("figcaption", {}, role), element("pre", { tabindex: 0, role: "region", "aria-label": `Message of the ${role}` }, content))),
    element("div", { class: "labels" }, element("span", { class: "note" }, "Labels to choose from: "),
      element("ul", { class: "chips" }, ...shown.candidates.map((label) => element("li", {}, name(label))))),
  );
}

function reading({ messages }) {
  if (messages.length === 0) return "This large model is a classifier: it reads the input, and no instructions.";
  return messages[0].role === "label" ? "It compares the input with a prompt for each label." : "";
}

function suggestions(found) {
  const entries = Object.entries(found);
  if (entries.length === 0) return null;
  const items = entries.map(([label, probability]) => element("li", {}, name(label), ` ${percent(probability)}`));
  return element("div", { class: "labels" }, element("span", { class: "note" }, "Suggested: "), element("ul", { class: "chips" }, ...items));
}
