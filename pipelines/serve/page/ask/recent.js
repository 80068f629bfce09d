// What was asked on this page so far, to compare answers; it is gone when the page is closed.

import { element, name } from "./dom.js";
import { percent } from "./formats.js";

const KEPT = 6;

/** A list that `add` puts answers on top of. */
export function recent(place) {
  const items = [];
  return {
    add(asked, answer) {
      items.unshift(entry(asked, answer));
      items.splice(KEPT);
      place.replaceChildren(element("h3", {}, "Asked here"), element("ol", { class: "recent" }, ...items));
    },
  };
}

function entry(asked, { label, answer_probability: probability, route }) {
  return element(
    "li",
    {},
    element("span", { class: `swatch ${route}`, title: route.replace("_", ", ") }),
    element("span", { class: "asked" }, name(asked)),
    element("span", { class: "outcome" }, name(label), probability === null ? "" : ` ${percent(probability, 0)}`),
  );
}
