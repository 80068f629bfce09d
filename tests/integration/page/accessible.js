// What keeps people out of a page, as a list of sentences: names, structure, contrast (WCAG 2.2 AA) and reach.
() => {
  const problems = [];
  const visible = (node) => node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const tagOf = (node) => `<${node.tagName.toLowerCase()} ${node.id || node.getAttribute("class") || ""}>`;

  // Everything that can be used has a name, and every reference leads somewhere.
  const nameOf = (node) => [
    node.getAttribute("aria-label"),
    ...(node.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent),
    ...[...(node.labels ?? [])].map((label) => label.textContent),
    node.getAttribute("alt"),
    ["BUTTON", "A", "SUMMARY", "H2"].includes(node.tagName) ? node.textContent : "",
  ].join("").trim();
  for (const node of document.querySelectorAll("a, button, input, select, textarea, summary, [tabindex], [role=meter], [role=img], section")) {
    if (visible(node) && !nameOf(node)) problems.push(`${tagOf(node)} has no name`);
  }
  for (const attribute of ["for", "aria-labelledby", "aria-describedby"]) {
    for (const node of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of node.getAttribute(attribute).split(" ")) {
        if (!document.getElementById(id)) problems.push(`${tagOf(node)} refers to ${id}, which is not there`);
      }
    }
  }
  for (const image of document.querySelectorAll("img:not([alt])")) problems.push(`${tagOf(image)} has no text alternative`);

  // Landmarks, headings without gaps, and ids that are used once.
  for (const landmark of ["header", "nav", "main", "footer", "h1"]) {
    if (document.querySelectorAll(`${landmark}:not(section ${landmark})`).length !== 1) problems.push(`not one ${landmark}`);
  }
  if (!document.documentElement.lang) problems.push("no language");
  let last = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    const level = Number(heading.tagName[1]);
    if (visible(heading) && level > last + 1) problems.push(`${tagOf(heading)} ${heading.textContent} skips a level`);
    if (visible(heading)) last = level;
  }
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`id ${id} is used twice`);

  // The contrast of every text with what lies behind it.
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (top, bottom) => [0, 1, 2].map((each) => top[each] * top[3] + bottom[each] * (1 - top[3])).concat(1);
  const behind = (node) => {
    if (!node) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(node).backgroundColor);
    return own[3] === 1 ? own : over(own, behind(node.parentElement));
  };
  const luminance = (colour) => {
    const [red, green, blue] = colour.slice(0, 3).map((each) => each / 255).map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !visible(node) || node.closest("noscript, title, option, .skip, .visually-hidden")) continue;
    const style = getComputedStyle(node);
    const back = behind(node);
    const ink = over(rgba(node instanceof SVGElement ? style.fill : style.color), back);
    const [light, dark] = [luminance(ink), luminance(back)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < needed) problems.push(`${tagOf(node)} "${walker.currentNode.textContent.trim().slice(0, 30)}": contrast ${ratio.toFixed(2)}`);
  }

  // Nothing sticks out sideways, but what scrolls by itself.
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) problems.push(`the page is ${document.documentElement.scrollWidth} wide, not ${width}`);
  return problems;
}
