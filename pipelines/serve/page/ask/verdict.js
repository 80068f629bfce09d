// What was answered, by whom, and what it took.

import { element, name } from "./dom.js";
import { duration, percent } from "./formats.js";

const ROUTES = {
  small: "answered by the small model",
  large: "answered by the large model",
  small_degraded: "answered by the small model, because the large one failed",
};

/** One answer of a prediction. */
export function verdict(answer, response) {
  return element(
    "div",
    {},
    element("p", { class: "label" }, name(answer.label)),
    route(answer),
    probabilities(answer),
    element("dl", { class: "facts slim" }, ...facts(answer, response)),
  );
}

/** The answer as one sentence, for those who hear it. */
export function spoken(answer) {
  const needed = answer.threshold === null ? "" : `, gate score ${answer.gate_score.toFixed(2)} against ${answer.threshold.toFixed(2)}`;
  return `${answer.label}, ${ROUTES[answer.route]}. The judge is ${percent(answer.judge_confidence)} sure${needed}.`;
}

function route(answer) {
  const asked = answer.route !== "small";
  const steps = [
    ["Judge", asked ? "not sure enough" : "sure enough", "done"],
    ["Small model", answer.route === "large" ? "passed over" : "answers", answer.route === "large" ? "idle" : "takes"],
    ["Large model", { small: "not asked", large: "answers", small_degraded: "failed" }[answer.route],
      { small: "idle", large: "takes", small_degraded: "failed" }[answer.route]],
  ];
  const items = steps.map(([who, what, state]) => element("li", { class: state }, element("b", {}, who), " ", element("span", {}, what)));
  return element("div", {}, element("p", { class: `route ${answer.route}` }, ROUTES[answer.route]), element("ol", { class: "path", "aria-label": "Route" }, ...items));
}

function probabilities(answer) {
  const entries = Object.entries(answer.probabilities);
  if (entries.length === 0) return element("p", { class: "note" }, "The large model gave a label without probabilities.");
  return element("ul", { class: "bars", "aria-label": "Probabilities" }, ...entries.map(([label, share]) => {
    const bar = element("span", { class: "fill", "aria-hidden": "true" });
    bar.style.setProperty("--share", share);
    return element("li", {}, element("span", { class: "who" }, name(label)), element("span", { class: "track" }, bar), element("span", { class: "much" }, percent(share)));
  }));
}

function facts(answer, { timings, model_version: version, request_id: id }) {
  const large = timings.large_s ? `, large model ${duration(timings.large_s)}` : "";
  return [
    ["Computation", duration(answer.cost_s)],
    ["Time", `${duration(timings.total_s)} (judge ${duration(timings.judge_s)}${large})`],
    ["Version", name(version)],
    ["Request", element("code", {}, id)],
  ].map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value)));
}
