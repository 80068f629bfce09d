// The inbox: one item after the other, one key per label. What is shown next waits until the answer is stored.

import { Refused, call } from "./api.js";
import { choice } from "./choice.js";
import { element, name } from "./dom.js";
import { count, percent } from "./formats.js";
import { asksForKey, keyIsGood, onKey } from "./key.js";

const find = (id) => document.getElementById(id);
const given = new Map(); // answers of this visit by id, for a second thought
const trail = []; // the items that were answered, the last one last
let open = []; // items that wait, in their order
let current = null;
let busy = false;
let labels = []; // that may be given
const choices = choice(find("labels"), find("filter-field"), answer);

async function load() {
  try {
    const found = await call("v1/labels");
    keyIsGood();
    find("state").textContent = found.version === null ? "No labels are asked for" : `Challenger ${found.version}`;
    ({ labels, items: open } = found);
    showCounts(found.standing);
    show(open.shift() ?? null);
  } catch (error) {
    tell(error);
  }
}

/** Put an item before the person; null where none is left. */
function show(item) {
  current = item;
  find("item").hidden = find("choice").hidden = item === null;
  find("undo").hidden = trail.length === 0;
  if (item === null) return;
  find("item-title").textContent = `Item ${count(item.position + 1)}`;
  find("task").replaceChildren(...(item.task === null ? [] : ["Task ", name(item.task)]));
  find("content").replaceChildren(...content(item));
  find("said").replaceChildren(...said("Challenger", item.small_label), ...said("Large model", item.large_label));
  choices.show(labels, given.get(item.id));
  find("item-title").focus(); // a screen reader reads on from here
}

function content({ text, image }) {
  const parts = [];
  if (text !== null) parts.push(element("p", { class: "asked-text", dir: "auto" }, text));
  if (image !== null) {
    const address = URL.createObjectURL(new Blob([Uint8Array.from(atob(image), (each) => each.charCodeAt(0))]));
    const picture = element("img", { class: "asked-image", src: address, alt: "The picture to label" });
    picture.addEventListener("load", () => URL.revokeObjectURL(address));
    parts.push(picture);
  }
  if (parts.length === 0) parts.push(element("p", { class: "note" }, "Nothing is stored of it: skip it, or label it by its id elsewhere."));
  return parts;
}

function said(who, label) {
  return label === null ? [] : [element("div", {}, element("dt", {}, `${who} says`), element("dd", {}, name(label)))];
}

/** Store a label, or null for a skip; the next item is shown once it is stored. */
async function answer(label) {
  if (busy || current === null) return;
  busy = true;
  find("problem").textContent = "";
  const item = current;
  try {
    const what = label === null ? { id: item.id, skip: true } : { id: item.id, label };
    const counts = await call("v1/labels", { body: { labels: [what], again: given.has(item.id) } });
    given.set(item.id, label);
    trail.push(item);
    find("status").textContent = `${label === null ? "Skipped" : `Stored: ${label}`}. ${count(counts.num_open)} left.`;
    showCounts(counts);
    await next();
  } catch (error) {
    tell(error);
    if (error.status === 409 || error.status === 404) await next(); // somebody was faster
  } finally {
    busy = false;
  }
}

async function next() {
  if (open.length) show(open.shift());
  else await load();
}

/** Go back to what was answered last. */
function undo() {
  if (busy || trail.length === 0) return;
  if (current !== null) open.unshift(current);
  show(trail.pop());
}

function showCounts(standing) {
  const { num_open: left, num_labelled: labelled, num_skipped: skipped } = standing;
  const keys = [["Left", left], ["Labelled", labelled], ["Skipped", skipped]];
  find("counts").replaceChildren(...keys.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, count(value)))));
  find("standing").hidden = false;
  find("next").textContent = left + labelled + skipped === 0
    ? "No inbox is open. “kcm labels CONFIG” draws the items that are worth a label."
    : `${left === 0 ? "That was the last one. " : ""}${certifies(standing, left)}The next “kcm update” uses the labels once they suffice: you may not have to answer all.`;
}

/** What the labels so far certify, in a sentence. */
function certifies(standing, left) {
  const { certified, stricter, bound, epsilon, num_units: units } = standing;
  if (units === 0) return "";
  const lost = `at most ${percent(bound)} of the answers are lost by the labels so far, ${percent(epsilon)} may be`;
  if (certified) return `They suffice: ${lost}. `;
  return stricter && left === 0 ? `They suffice for a challenger that keeps less; as it is, ${lost}. ` : `Not yet enough: ${lost}. `;
}

function tell(error) {
  if (!(error instanceof Refused)) throw error;
  if (asksForKey(error)) return;
  find("problem").textContent = error.message;
  if (error.status === 403) find("state").textContent = "Not for this key";
}

/** One key per answer, but not while something is typed or a browser's own shortcut is pressed. */
function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
  if (!find("keys").checked || find("choice").hidden || event.target.matches("input:not([type=checkbox])")) return;
  const key = event.key.toLowerCase();
  if (key === "s") answer(null);
  else if (key === "u") undo();
  else if (!choices.press(key)) return;
  event.preventDefault();
}

document.addEventListener("keydown", pressed);
find("skip").addEventListener("click", () => answer(null));
find("undo").addEventListener("click", undo);
onKey(load);
load();
