// The versions that have answered so far: what each kept, lost and cost in labels, and what all of them have saved.

import { element, name } from "./dom.js";
import { count, percent } from "./formats.js";

const NEW_CLASSES =
  "New classes came: inputs far from all known ones go to the large model. `kcm log export` writes them, " +
  "`kcm labels --name` names a class, and the next update learns it.";

/** A summary and a table of `versions`, the newest first; the card is of the one that answers now. */
export function timeline({ versions, num_items: items, num_escalated: escalated, num_labels: labels }, card) {
  if (versions.length === 0) return element("p", { class: "note" }, "Nothing is in the log yet.");
  const keys = [
    [`Calls saved since ${day(versions[0].since)}`, `${count(items - escalated)}`],
    ["Of all items", percent(1 - escalated / items)],
    ["Labels by people", count(labels)],
  ];
  const heads = ["Version", "First answer", "Items", "Calls", "Kept ones that differ from the large model", "Labels"];
  const table = element(
    "table",
    { class: "timeline" },
    element("caption", {}, element("span", {}, "The newest first; bounds hold with a probability of 90% at all times.")),
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...[...versions].reverse().map((each) => row(each, card.model_version))),
  );
  return element(
    "div",
    {},
    element("dl", { class: "tally" }, ...keys.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value)))),
    ...(card.drift.escalates_novel ? [element("p", { class: "note" }, NEW_CLASSES)] : []),
    element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Versions that have answered" }, table),
  );
}

function row(found, served) {
  const state = found.refuted_at !== null ? `refuted on ${day(found.refuted_at)}` : found.version === served ? "answers now" : null;
  const rate = element("span", { class: "track", "aria-hidden": "true" }, element("span", { class: "fill" }));
  rate.firstChild.style.setProperty("--share", found.num_escalated / found.num_items);
  return element(
    "tr",
    found.refuted_at === null ? {} : { class: "refuted" },
    element("th", { scope: "row" }, name(found.version), state && element("small", {}, state)),
    element("td", {}, day(found.since)),
    element("td", {}, count(found.num_items)),
    element("td", {}, percent(found.num_escalated / found.num_items), rate),
    element("td", {}, ...differs(found)),
    element("td", {}, count(found.num_labels)),
  );
}

function differs({ disagreement, num_audited: audited }) {
  if (disagreement === null) return ["–", element("small", {}, "none was audited")];
  return [`${percent(disagreement[0])} to ${percent(disagreement[1])}`, element("small", {}, `${count(audited)} audited`)];
}

function day(moment) {
  return new Date(moment).toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
}
