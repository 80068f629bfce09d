// The words of a text, shaded by what each adds to the judge's answer.

import { element, name } from "./dom.js";
import { signed } from "./formats.js";
import { shadeKey, shaded } from "./shades.js";

/** The text with its words shaded; `words` are its first ones, each with its effect. */
export function shadedWords(text, words, label) {
  if (words.length === 0) return element("p", { class: "note" }, "A single word has nothing to be compared with.");
  const largest = Math.max(...words.map(([, effect]) => Math.abs(effect)), 1e-9);
  const rest = text.trim().split(/\s+/).slice(words.length).join(" ");
  const marked = words.flatMap((word) => [shade(word, largest), " "]);
  return element(
    "div",
    {},
    element("h3", {}, "Words"),
    element("p", { class: "note" }, "Shaded by how much the judge’s logit of ", name(label), " falls when the word is left out. ",
      shadeKey()),
    element("p", { class: "words", dir: "auto" }, ...marked, rest),
    element("p", { class: "note" }, "Heeded most: ", ...heeded(words)),
  );
}

function shade([word, effect], largest) {
  return shaded(element("span", { title: signed(effect) }, word), effect, Math.abs(effect) / largest);
}

function heeded(words) {
  const most = [...words].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 5);
  return most.flatMap(([word, effect], index) => [index ? ", " : "", name(word), ` ${signed(effect)}`]);
}
