// The shades of what speaks for an answer and against it, which words and pictures share.

import { element } from "./dom.js";

/** Shade an element: `share` of the strongest shade, 0 to 1, of the side that `effect` is on. */
export function shaded(node, effect, share) {
  node.classList.add(effect < 0 ? "against" : "for");
  node.style.setProperty("--heat", Math.round(100 * share));
  return node;
}

/** What the two shades mean. */
export function shadeKey() {
  const sides = [["speaks for it", 1], ["speaks against it", -1]];
  return element("span", {}, ...sides.flatMap(([words, effect]) => [shaded(element("span", { class: "key" }, words), effect, 0.7), " "]));
}
