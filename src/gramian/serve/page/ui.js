// Small pieces that every view is made of. Text only ever becomes text nodes.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes, listeners (onclick: …), then children. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of a drawing. */
export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** "Matrix, The (1999)" as it is said: the name and the year. */
export function named(row) {
  const title = row.title ?? `Item ${row.item}`;
  const [, rest, year] = /^(.*?)\s*\((\d{4})\)$/.exec(title) ?? [null, title, ""];
  const [, name, article] = /^(.*), (The|A|An|Le|La|Les|Das|Der|Die|El|Il)$/.exec(rest) ?? [null, rest, ""];
  return { name: article ? `${article} ${name}` : name, year };
}

export function titleOf(row) {
  const { name, year } = named(row);
  return h("span", { class: "title" }, name, year ? h("span", { class: "year" }, ` ${year}`) : null);
}

export const plain = (row) => named(row).name;

export const number = (value, digits = 1) => value.toFixed(digits);

const hues = new Map();

/** Remember where items lie on the map: what is liked by the same people gets a similar colour. */
export function colourBy(items) {
  const spread = (values) => {
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length) || 1;
    return values.map((value) => (value - mean) / deviation);
  };
  const [xs, ys] = [spread(items.map((row) => row.x)), spread(items.map((row) => row.y))];
  items.forEach(({ item }, k) => hues.set(item, Math.round((Math.atan2(ys[k], xs[k]) * 180) / Math.PI + 360) % 360));
}

export function tinted(element, item) {
  if (hues.has(item)) element.style.setProperty("--hue", hues.get(item));
  else element.classList.add("grey");
  return element;
}

let scale = { low: 0.5, high: 5, values: [1, 2, 3, 4, 5] };

/** Stars for a scale: one for each whole number where there are few, else five over its whole length. */
export function setScale([low, high]) {
  const few = high <= 10 && high - low >= 1;
  const first = Math.max(1, Math.ceil(low));
  const values = few
    ? Array.from({ length: Math.floor(high) - first + 1 }, (_, k) => first + k)
    : [0, 1, 2, 3, 4].map((k) => low + ((high - low) * k) / 4);
  scale = { low, high, values };
}

let groups = 0;

/** A row of stars: radio buttons, so that arrow keys and screen readers know them; digits work, too. */
export function stars(row, value, rate) {
  const group = `stars-${(groups += 1)}`;
  const box = h("fieldset", { class: "stars" }, h("legend", { class: "hidden" }, `Your rating of ${plain(row)}`));
  scale.values.forEach((one, place) => {
    const input = h("input", { type: "radio", name: group, value: one, "aria-label": `${number(one, one % 1 ? 1 : 0)} of ${scale.high}` });
    input.checked = value === one;
    input.addEventListener("change", () => { shown(one); rate(one); });
    box.append(h("label", { "data-place": place }, input, s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" },
      s("path", { d: "m12 2.600 2.900 5.900 6.500.950-4.700 4.600 1.100 6.450-5.800-3.050-5.800 3.050 1.100-6.450-4.700-4.600 6.500-.950z" }))));
  });
  const inputs = [...box.querySelectorAll("input")];
  const shown = (now) => {
    inputs.forEach((input) => {
      input.checked = Number(input.value) === now;
      input.parentElement.classList.toggle("lit", now !== null && now !== undefined && Number(input.value) <= now + 1e-9);
    });
  };
  box.addEventListener("keydown", (event) => {
    const wanted = inputs[Number(event.key) - 1];
    if (wanted) { wanted.focus(); wanted.click(); }
  });
  box.shown = shown;
  shown(value);
  return box;
}

const share = (value) => `${(100 * Math.min(1, Math.max(0, (value - scale.low) / (scale.high - scale.low)))).toFixed(2)}%`;

/** The predicted rating, and the range that it lies in with its probability, on the whole scale. */
export function gauge(row, level) {
  const track = h("div", { class: "track", "aria-hidden": "true" });
  const sure = row.lower !== null;
  if (sure) {
    const range = h("i", { class: "range" });
    range.style.left = share(row.lower);
    range.style.right = `calc(100% - ${share(row.upper)})`;
    track.append(range);
  }
  const dot = h("i", { class: "dot" });
  dot.style.left = share(row.predicted);
  track.append(dot);
  const text = sure ? `${number(row.lower)} – ${number(row.upper)}` : "";
  const about = sure
    ? `${Math.round(100 * level)} of 100 such ratings lie between ${number(row.lower)} and ${number(row.upper)}`
    : "The predicted rating";
  return h("div", { class: "gauge", title: about },
    h("span", { class: "value" }, h("b", {}, number(row.predicted)), h("span", { class: "hidden" }, ` predicted. ${about}.`)),
    track, h("span", { class: "ends", "aria-hidden": "true" }, text));
}

export function say(text, bad = false) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

/** Run something that asks the server; what goes wrong is said. */
export async function tried(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
    return undefined;
  }
}
