// One curve: what a feature adds to a logit, or a signal to the gate score, at each of its values; and where this input lies.

import { svg } from "./dom.js";
import { number } from "./formats.js";

const WIDTH = 220, HEIGHT = 116, LEFT = 34, RIGHT = 8, TOP = 10, BOTTOM = 22;

/** The curve of an edge, described in `words`; `low` and `high` are the ends of the vertical axis, the same for all curves side by side. */
export function curve(edge, words, low, high) {
  const [first, last] = [edge.points[0], edge.points.at(-1)];
  const x = (value) => LEFT + ((value - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const line = edge.points.map((value, index) => `${x(value).toFixed(1)},${y(edge.curve[index]).toFixed(1)}`).join(" ");
  const [here, there] = [Math.min(Math.max(x(edge.value), LEFT), WIDTH - RIGHT), y(edge.carried)];
  const ground = y(Math.min(Math.max(0, low), high));
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "edge", role: "img", "aria-label": words },
    svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: ground, y2: ground, class: "ground" }),
    svg("line", { x1: here, x2: here, y1: TOP, y2: HEIGHT - BOTTOM, class: "here" }),
    svg("polyline", { points: line, class: "function" }),
    svg("line", { x1: here, x2: here, y1: ground, y2: there, class: edge.carried < 0 ? "adds against" : "adds for" }),
    svg("circle", { cx: here, cy: there, r: 4.5, class: edge.carried < 0 ? "dot against" : "dot for" }),
    ...[low, high].map((end) => svg("text", { x: LEFT - 5, y: y(end), class: "end y" }, number(end, 1))),
    ...[first, last].map((end, index) => svg("text", { x: x(end), y: HEIGHT - 6, class: index ? "end last" : "end first" }, number(end, last - first < 1 ? 2 : 1))),
  );
}
