// What was saved since the service started.

import { element } from "./dom.js";
import { count, percent } from "./formats.js";

const NEW_CLASSES =
  "New classes came: inputs far from all known ones go to the large model. `kcm log export` writes them, " +
  "`kcm update --classes FILE` names a class, and the next update learns it.";
const ROUTES = [["small", "small model"], ["large", "large model"], ["small_degraded", "small in its place"]];

/** Items by route, and the share of calls and of computation that the large model was spared. */
export function trafficView({ traffic, call_rate: callRate, cost_saved: costSaved, novelty, update_units: updateUnits }) {
  const total = traffic.small + traffic.large + traffic.small_degraded;
  const keys = [["Items answered", count(total)], ["Calls saved", total ? percent(1 - callRate) : "–"],
    ["Cost saved", costSaved === null ? "–" : percent(costSaved)]];
  return element(
    "div",
    {},
    element("dl", { class: "tally" }, ...keys.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value)))),
    total ? split(traffic, total) : null,
    novelty.escalates ? element("p", { class: "note" }, NEW_CLASSES) : null,
    updateUnits ? element("p", { class: "note" }, `A first update can certify once ${count(updateUnits)} units of traffic certify.`) : null,
    total && costSaved === null ? element("p", { class: "note" }, "The cost saved is known once the large model has answered.") : null,
  );
}

function split(traffic, total) {
  const parts = ROUTES.filter(([route]) => traffic[route] > 0);
  const bar = element("div", { class: "split", "aria-hidden": "true" }, ...parts.map(([route]) => {
    const part = element("span", { class: route });
    part.style.setProperty("flex-grow", traffic[route] / total);
    return part;
  }));
  const legend = element("ul", { class: "legend" }, ...parts.map(([route, words]) =>
    element("li", {}, element("span", { class: `swatch ${route}`, "aria-hidden": "true" }), `${count(traffic[route])} ${words}`)));
  return element("div", {}, bar, legend);
}
