// The slider moves over the thresholds that the table below it lists; without this script the table stands alone.
for (const box of document.querySelectorAll(".slider")) {
  const points = JSON.parse(box.dataset.points);
  const range = box.querySelector("input");
  const show = () => {
    const shown = points[range.value];
    for (const place of box.querySelectorAll("[data-key]")) place.textContent = shown[place.dataset.key];
    range.setAttribute("aria-valuetext", `${shown.call_rate} of the calls, ${shown.accuracy} correct`);
  };
  range.max = points.length - 1;
  range.value = box.dataset.start;
  range.addEventListener("input", show);
  box.hidden = false;
  show();
}
// What a mark of a chart says to a screen reader is its tip under the pointer, too.
for (const mark of document.querySelectorAll(".role-mark [aria-label]")) {
  mark.append(document.createElementNS("http://www.w3.org/2000/svg", "title"));
  mark.lastChild.textContent = mark.getAttribute("aria-label");
}
