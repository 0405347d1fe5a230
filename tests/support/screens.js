// Run in the page by screens.py: each function lists what offends.
(() => {
  const seen = (element) => {
    const box = element.getBoundingClientRect();
    const shown = element.checkVisibility({
      visibilityProperty: true,
      opacityProperty: true,
    });
    return shown && box.width > 1 && box.height > 1;
  };
  const called = (element) =>
    (element.ariaLabel || element.textContent.trim() || element.outerHTML)
      .slice(0, 60)
      .replaceAll(/\s+/g, " ");
  const ancestors = (element) =>
    element ? [element, ...ancestors(element.parentElement)] : [];

  // -- contrast --

  const context = Object.assign(document.createElement("canvas"), {
    width: 1,
    height: 1,
  }).getContext("2d", {
    willReadFrequently: true,
  });
  const known = new Map();
  const colour = (text) => {
    // red, green, blue, alpha of any notation, as the browser mixes it
    if (!known.has(text)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = text;
      context.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
      known.set(text, [red, green, blue, alpha / 255]);
    }
    return known.get(text);
  };
  const over = (layer, below) =>
    below.map((part, index) => layer[index] * layer[3] + part * (1 - layer[3]));
  const ground = (element) => {
    const layers = ancestors(element).map((one) =>
      colour(getComputedStyle(one).backgroundColor),
    );
    const opaque = layers.findIndex((layer) => layer[3] === 1);
    const visible = opaque < 0 ? layers : layers.slice(0, opaque + 1);
    return visible.reduceRight((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const luminance = (rgb) => {
    const linear = (part) =>
      part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const [red, green, blue] = rgb.map((part) => linear(part / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (element, style) => {
    const below = ground(element);
    const opacity = ancestors(element).reduce(
      (product, one) => product * getComputedStyle(one).opacity,
      1,
    );
    const [red, green, blue, alpha] = colour(
      element instanceof SVGElement ? style.fill : style.color,
    );
    const lights = [
      luminance(over([red, green, blue, alpha * opacity], below)),
      luminance(below),
    ];
    return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
  };
  const written = () => {
    // every text that is shown: element, text, style
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (
        walker.currentNode.data.trim() &&
        !element.matches("script, style, noscript, option")
      )
        found.push([
          element,
          walker.currentNode.data.trim(),
          getComputedStyle(element),
        ]);
    }
    for (const field of document.querySelectorAll("input, textarea")) {
      if (field.value) found.push([field, field.value, getComputedStyle(field)]);
      else if (field.placeholder)
        found.push([
          field,
          field.placeholder,
          getComputedStyle(field, "::placeholder"),
        ]);
    }
    return found;
  };

  const faint = () => {
    const found = new Set();
    const disabled =
      "[aria-disabled=true], [disabled], .disabled, [aria-hidden=true]:not(i)";
    for (const [element, text, style] of written()) {
      if (!seen(element) || element.closest(disabled)) continue;
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      const enough = large || element.matches("i") ? 3 : 4.5;
      const ratio = contrast(element, style);
      if (ratio < enough)
        found.add(
          `${text.slice(0, 40)}: ${ratio.toFixed(2)}, ${style.color} on ${ground(element).map(Math.round)}`,
        );
    }
    return [...found];
  };

  // -- places and sizes --

  const sideways = () => {
    const root = document.documentElement;
    const scrolls = (element) =>
      /auto|scroll/.test(getComputedStyle(element).overflowX);
    const found =
      root.scrollWidth > innerWidth ? [`the page is ${root.scrollWidth} wide`] : [];
    for (const element of document.querySelectorAll(
      "button, input, select, textarea, a, h1, h2, h3, [role], p, img",
    )) {
      const { left, right } = element.getBoundingClientRect();
      const inside = right <= innerWidth + 1 && left >= -1;
      const reachable = ancestors(element).some(
        (one) => one !== document.body && one !== root && scrolls(one),
      );
      if (seen(element) && !inside && !reachable)
        found.push(`${called(element)}: from ${left} to ${right}`);
    }
    return found;
  };

  const small = () => {
    const found = [];
    const controls =
      "button, a[href], [role=button], [role=tab], [role=switch], [role=checkbox], input, textarea";
    for (const control of document.querySelectorAll(controls)) {
      const target =
        control.closest(".q-field, .q-toggle, label, [role=switch], [role=tab]") ||
        control;
      const { width, height, bottom } = target.getBoundingClientRect();
      const inText = control.matches("a") && control.closest("p, li");
      if (seen(control) && bottom > 0 && !inText && Math.min(width, height) < 43.5)
        found.push(`${called(control)}: ${Math.round(width)} x ${Math.round(height)}`);
    }
    return found;
  };

  return { faint, sideways, small };
})();
