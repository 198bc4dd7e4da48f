// Evaluated in a page by chromium.ts: what is wrong with how it is drawn, as sentences.
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  // Any colour that CSS can write, as red, green, blue (0 to 255) and alpha (0 to 1).
  const colourOf = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [...[0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])), 1];
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((each) => {
      const share = each / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faults = new Set();
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) faults.add(`the page is ${wide} px wider than the window`);
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    const seen = own && element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    if (!seen || element.closest("title, script, style, :disabled, option")) continue;
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(colourOf(getComputedStyle(at).backgroundColor));
    const ground = layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
    const style = getComputedStyle(element);
    const ink = over(colourOf(element instanceof SVGElement ? style.fill : style.color), ground);
    const [light, dark] = [luminance(ink), luminance(ground)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio >= 4.5) continue;
    const name = `${element.tagName.toLowerCase()}.${element.getAttribute("class") ?? ""}`;
    faults.add(`contrast ${ratio.toFixed(2)} of ${name} "${element.textContent.trim().slice(0, 30)}"`);
  }
  return [...faults].slice(0, 20);
})();
