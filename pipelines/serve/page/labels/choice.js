// The labels to choose from: a digit takes one of the first nine, and where there are more, typing narrows them down.

import { element, name } from "./dom.js";

const KEYS = 9;

/** Fills `list`, and shows `field` with its input where there are more labels than keys; `take` is called with a label. */
export function choice(list, field, take) {
  const input = field.querySelector("input");
  let labels = [];
  let left = [];
  let before;

  function draw() {
    const wanted = input.value.trim().toLowerCase();
    left = labels.filter((label) => label.toLowerCase().includes(wanted));
    list.replaceChildren(...left.map(item));
  }

  function item(label, index) {
    const key = index < KEYS ? String(index + 1) : null;
    const button = element(
      "button",
      { type: "button", class: "plain", "aria-keyshortcuts": key, "aria-pressed": before === undefined ? null : String(label === before) },
      key === null ? null : element("kbd", {}, key),
      key === null ? null : " ",
      name(label),
    );
    button.addEventListener("click", () => take(label));
    return element("li", {}, button);
  }

  input.addEventListener("input", draw);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && left.length && input.value.trim()) take(left[0]);
    else if (event.key === "Escape") document.getElementById("item-title").focus();
  });

  return {
    /** Offer these labels for an item; `given` is what it was given before: a label, null for a skip, or undefined. */
    show(offered, given) {
      [labels, before] = [offered, given];
      field.hidden = labels.length <= KEYS;
      input.value = "";
      draw();
    },
    /** Whether a key was one of a label, or leads to the field. */
    press(key) {
      if (key === "/" && !field.hidden) input.focus();
      else if (/^[1-9]$/.test(key) && left[key - 1] !== undefined) take(left[key - 1]);
      else return false;
      return true;
    },
  };
}
