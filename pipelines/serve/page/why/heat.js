// The parts of a picture, shaded by what each adds to the judge's answer.

import { element, name } from "./dom.js";
import { signed } from "./formats.js";
import { shadeKey } from "./shades.js";

const FOR = [11, 107, 127], AGAINST = [168, 72, 26];
const ROWS = ["top", "middle", "bottom"], COLUMNS = ["left", "centre", "right"];

/** The picture at `address`, squeezed to a square as the encoder sees it, under its cells; `cells` are rows of effects. */
export function heatMap(address, cells, label) {
  const canvas = element("canvas", { width: cells[0].length, height: cells.length, role: "img", "aria-label": spoken(cells) });
  paint(canvas.getContext("2d"), cells);
  return element(
    "div",
    {},
    element("h3", {}, "Picture"),
    element("p", { class: "note" }, "Shaded by what the pixels add to the judge’s logit of ", name(label), ". ", shadeKey()),
    element("div", { class: "heat" }, element("img", { src: address, alt: "" }), canvas),
    element("p", { class: "note" }, spoken(cells)),
  );
}

/** A picture whose encoder has no places to point to. */
export function plainPicture(address) {
  return element("div", {}, element("h3", {}, "Picture"), element("div", { class: "heat" }, element("img", { src: address, alt: "The picture that was asked about" })),
    element("p", { class: "note" }, "The features of this encoder have no place in the picture."));
}

function paint(context, cells) {
  const image = context.createImageData(cells[0].length, cells.length);
  const largest = Math.max(...cells.flat().map(Math.abs), 1e-9);
  cells.flat().forEach((effect, index) => {
    const alpha = Math.round(215 * Math.sqrt(Math.abs(effect) / largest));
    image.data.set([...(effect < 0 ? AGAINST : FOR), alpha], 4 * index);
  });
  context.putImageData(image, 0, 0);
}

function spoken(cells) {
  const ninths = ROWS.flatMap((row, i) => COLUMNS.map((column, j) => ({ place: `${row} ${column}`, effect: ninth(cells, i, j) })));
  ninths.sort((a, b) => b.effect - a.effect);
  const [most, least] = [ninths[0], ninths.at(-1)];
  return `Most for it: ${most.place} (${signed(most.effect)}). Most against it: ${least.place} (${signed(least.effect)}).`;
}

function ninth(cells, i, j) {
  const part = (list, index) => list.slice(Math.floor((index * list.length) / 3), Math.floor(((index + 1) * list.length) / 3));
  return part(cells, i).flatMap((row) => part(row, j)).reduce((total, effect) => total + effect, 0);
}
