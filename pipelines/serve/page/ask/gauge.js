// The judge's confidence against the threshold, on a half circle: left of the mark the large model is asked.

import { element, svg } from "./dom.js";
import { number, percent } from "./formats.js";

const CENTRE = 140, BASE = 138, RADIUS = 104, WIDTH = 18;
const CONFIDENCES = [0.5, 0.75, 0.9, 0.97, 0.99, 0.999];

/**
 * The gauge of one answer, or of none yet.
 *
 * Its scale is that of the gate score. The score of the gate `confidence` is the log-odds of the judge's winner, so that
 * its marks can be written as probabilities.
 */
export function gauge({ gate, numLabels, score = null, confidence = null, threshold = null, keepsAll = false }) {
  const scale = gate === "confidence" ? confidenceScale(numLabels, [score, threshold]) : scoreScale([score, threshold]);
  const cut = threshold === null ? (keepsAll ? 0 : 1) : scale.share(threshold);
  const drawing = svg(
    "svg",
    { viewBox: "0 0 280 162", "aria-hidden": "true", class: "gauge" },
    arc(0, cut, "zone asks"),
    arc(cut, 1, "zone keeps"),
    ...scale.ticks.map(({ at, words }) => label(scale.share(at), words, "tick-label", RADIUS - 24)),
    ...(threshold === null ? [] : [mark(cut), label(cut, scale.brief(threshold), "needed", RADIUS + 28)]),
    svg("text", { x: CENTRE - RADIUS, y: BASE + 14, class: "side" }, "large"),
    svg("text", { x: CENTRE + RADIUS, y: BASE + 14, class: "side" }, "small"),
    score === null ? null : needle(scale.share(score)),
    svg("text", { x: CENTRE, y: BASE - 16, class: "value" }, confidence === null ? "–" : percent(confidence)),
    svg("text", { x: CENTRE, y: BASE + 4, class: "unit" }, "sure"),
  );
  return element("figure", { class: "dial" }, meter(drawing, confidence, said(scale, { score, threshold, keepsAll })),
    element("figcaption", {}, said(scale, { score, threshold, keepsAll })));
}

function meter(drawing, confidence, words) {
  if (confidence === null) return drawing;
  const now = (100 * confidence).toFixed(1);
  const attributes = { role: "meter", "aria-label": "Confidence of the judge", "aria-valuemin": 0, "aria-valuemax": 100 };
  return element("div", { ...attributes, "aria-valuenow": now, "aria-valuetext": `${percent(confidence)} sure. ${words}` }, drawing);
}

function said(scale, { score, threshold, keepsAll }) {
  if (threshold === null) return keepsAll ? "The small model answers, whatever the gate score." : "The large model answers, whatever the gate score.";
  const needed = scale.write(threshold);
  if (score === null) return `Above ${needed} the small model answers.`;
  return score > threshold ? `Above the ${needed} that it takes: the small model answers.`
    : `Not above the ${needed} that it takes: the large model is asked.`;
}

function confidenceScale(numLabels, values) {
  const low = logOdds(1 / numLabels);
  const high = Math.max(logOdds(0.995), ...values.filter((value) => value !== null)) * 1.03;
  const marks = CONFIDENCES.map((each) => ({ at: logOdds(each), words: `${100 * each}%` }));
  const write = (score) => percent(1 / (1 + Math.exp(-score)));
  return { ...linear(low, high, marks), write, brief: write };
}

function scoreScale(values) {
  const found = values.filter((value) => value !== null);
  const middle = found.length ? found.at(-1) : 0;
  const reach = 1.4 * Math.max(0.5, ...found.map((value) => Math.abs(value - middle)));
  const marks = [middle - reach / 2, middle + reach / 2].map((at) => ({ at, words: number(at, 1) }));
  return { ...linear(middle - reach, middle + reach, marks), write: (score) => `gate score of ${number(score)}`, brief: number };
}

function linear(low, high, marks) {
  const share = (value) => Math.min(Math.max((value - low) / (high - low), 0), 1);
  return { share, ticks: marks.filter(({ at }) => at > low && share(at) < 0.97) };
}

function logOdds(probability) {
  return Math.log(probability / (1 - probability));
}

function point(share, radius) {
  const angle = Math.PI * (1 - share);
  return [CENTRE + radius * Math.cos(angle), BASE - radius * Math.sin(angle)].map((each) => each.toFixed(2));
}

function arc(from, to, style) {
  if (to - from < 1e-6) return null;
  const [start, end] = [point(from, RADIUS), point(to, RADIUS)];
  return svg("path", { d: `M${start} A${RADIUS} ${RADIUS} 0 0 1 ${end}`, class: style, "stroke-width": WIDTH });
}

function mark(share) {
  const [[x1, y1], [x2, y2]] = [point(share, RADIUS - WIDTH / 2 - 5), point(share, RADIUS + WIDTH / 2 + 5)];
  return svg("line", { x1, y1, x2, y2, class: "threshold" });
}

function needle(share) {
  const [x, y] = point(share, RADIUS);
  return svg("circle", { cx: x, cy: y, r: WIDTH / 2 + 3, class: "needle" });
}

function label(share, words, style, radius) {
  const [x, y] = point(share, radius);
  return svg("text", { x, y, class: style }, words);
}
