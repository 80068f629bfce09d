// What the gate score of an input is made of: every curve of the gate, whole, where this input lies on it, and the rates of labels.

import { curve } from "./curve.js";
import { element, name } from "./dom.js";
import { number, percent, signed } from "./formats.js";

const SHOWN_UNASKED = 6; // labels

/** The curves of a gate that is made of curves; `answer` is the small model's label. */
export function gate({ constant, curves, values, contributions, labels }, answer) {
  const score = contributions.reduce((total, added) => total + added, constant);
  const signals = curves.map(({ signal, points, added }, index) => (
    { ...signal, points, curve: added, value: values[index], contribution: contributions[index] }));
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
    rates(labels, answer),
  );
}

function rates(labels, answer) {
  const own = labels.find(({ label }) => label === answer);
  const heads = ["The small model answers", "It is right", "The large model is right", "Both add"];
  const table = element(
    "table",
    {},
    element("caption", {}, element("span", {}, "On validate rows, drawn to the mean by ten rows. First the labels whose answers escalate most easily.")),
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...labels.map((each) => row(each, answer))),
  );
  return element(
    "div", {},
    element("p", { class: "note" }, "Two signals are rates of the answer: where the small model says ", name(answer), `, it is right on ${percent(own.small_accuracy)} of validate rows, and the large model on ${percent(own.large_accuracy)}.`),
    element(
      "details", { class: "rates", ...(labels.length > SHOWN_UNASKED ? {} : { open: "" }) },
      element("summary", {}, `The rates of all ${labels.length} labels`),
      element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Rates by label" }, table),
    ),
  );
}

function row({ label, small_accuracy: small, large_accuracy: large, added }, answer) {
  return element(
    "tr", label === answer ? { class: "own" } : {},
    element("th", { scope: "row" }, name(label), label === answer ? element("small", {}, "this answer") : null),
    element("td", {}, percent(small)),
    element("td", {}, percent(large)),
    element("td", {}, signed(added)),
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
