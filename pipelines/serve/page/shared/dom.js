// Elements built from data. Every string becomes a text node: whatever a text or a label says, it stays text.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element with attributes and children; a child that is null is left out. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** A word that may be written in any direction. */
export function name(text) {
  return element("bdi", {}, text);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
