// What the logit of a network's answer is made of: the largest contributions, each with the edge function behind it.

import { curve } from "./curve.js";
import { element, name } from "./dom.js";
import { number, percent, signed } from "./formats.js";

const NAMES = { judge: "Judge", small: "Small model" };

/** The contributions of every network, one network at a time. */
export function contributions({ reasons, no_curves: none }) {
  const networks = Object.entries(reasons).map(([network, made]) => ({ network, ...made }));
  if (networks.length === 0) return element("div", {}, element("h3", {}, "Edge functions"), element("p", { class: "note" }, none));
  const panels = networks.map((network) => panel(network));
  const choice = networks.length > 1 ? choices(networks, panels) : null;
  return element("div", {}, element("div", { class: "row between" }, element("h3", {}, "Edge functions"), choice), ...panels);
}

function choices(networks, panels) {
  const show = (chosen) => panels.forEach((each, index) => { each.hidden = index !== chosen; });
  const options = networks.map(({ network }, index) => {
    const input = element("input", { type: "radio", name: "network", value: network });
    input.checked = index === 0;
    input.addEventListener("change", () => show(index));
    return element("label", {}, input, element("span", {}, NAMES[network]));
  });
  show(0);
  return element("fieldset", { class: "choice" }, element("legend", { class: "visually-hidden" }, "Network"), ...options);
}

function panel(reasons) {
  const ends = reasons.contributions.flatMap((edge) => [...edge.curve, edge.carried]);
  const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const room = Math.max((high - low) * 0.06, 1e-3);
  const cards = reasons.contributions.map((edge) => element("li", {}, heading(edge), curve(edge, spoken(edge), low - room, high + room)));
  return element("div", { class: "panel" }, sum(reasons), element("ul", { class: "edges" }, ...cards), element("p", { class: "note" }, kind(reasons)));
}

function spoken(edge) {
  return `Edge function of ${edge.name}: at ${number(edge.value)} it adds ${signed(edge.carried)} to the logit, by way of ${edge.to}.`;
}

function heading(edge) {
  const style = edge.contribution < 0 ? "against" : "for";
  return element("p", { class: "edge-title" }, element("span", {}, edge.word ? `${edge.name}, most by “${edge.word}”` : edge.name), element("b", { class: style }, signed(edge.contribution)));
}

function sum({ label_name: label, logit, baseline, base, rest, num_others: numOthers, unlisted, contributions: edges }) {
  const listed = edges.reduce((total, edge) => total + edge.contribution, 0);
  const means = base === 0 ? "" : `class means, which no curve shows, ${signed(base)}, `;
  const start = (baseline === 0 ? "" : `baseline ${number(baseline)}, `) + means;
  return element("p", { class: "note" }, `Logit ${number(logit)} of `, name(label), `: ${start}these curves ${signed(listed)}, ${numOthers} others ${signed(rest)}. The others are ${percent(unlisted)} of all by size.`);
}

function kind({ exact }) {
  return exact
    ? "Each curve is what the edge adds to the logit, the mark where this input lies. One layer: the shares are exact."
    : "Each curve is the edge that carried most of the feature’s share, through a hidden node, in units of the logit. The shares of deeper networks are an approximation (DeepLIFT).";
}
