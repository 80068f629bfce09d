// What the gate score of an input is made of: every curve of the gate, whole, and where this input lies on it.

import { curve } from "./curve.js";
import { element } from "./dom.js";
import { number, signed } from "./formats.js";

/** The curves of a gate that is made of curves. */
export function gate({ score, constant, signals }) {
  const ends = signals.flatMap((signal) => [...signal.curve, signal.contribution]);
  const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const room = Math.max((high - low) * 0.06, 1e-3);
  const cards = signals.map((signal) => card(signal, low - room, high + room));
  const sum = `Gate score ${number(score)}: an average input has ${number(constant)}, these signals add ${signed(score - constant)}.`;
  return element(
    "div", {},
    element("h3", {}, "Gate"),
    element("p", { class: "note" }, sum),
    element("ul", { class: "edges" }, ...cards),
    element("p", { class: "note" }, "Each curve is what the signal adds to the gate score, the mark where this input lies. These are all the curves there are, and each may only rise or only fall."),
  );
}

function card(signal, low, high) {
  const words = `${signal.name}, ${signal.meaning}: at ${number(signal.value)} it adds ${signed(signal.contribution)} to the gate score.`;
  const style = signal.contribution < 0 ? "against" : "for";
  return element(
    "li", { title: signal.meaning },
    element("p", { class: "edge-title" }, element("span", {}, signal.name), element("b", { class: style }, signed(signal.contribution))),
    curve({ ...signal, carried: signal.contribution }, words, low, high),
  );
}
