// Drawings: lines over a grid, and the map. Plain SVG, coloured by the style sheet.

import { h, number, plain, s } from "/page/ui.js";

const W = 560;
const H = 300;
const PAD = { left: 70, right: 16, top: 14, bottom: 38 };

const ticks = (low, high, count) => {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, k) => (first + k) * step);
};

/** Lines: [{name, points: [[x, y], …]}] over labelled axes; `alt` says in words what is to be seen. */
export function lines(series, { x: xName, y: yName, alt, box, digits = 2 }) {
  const all = series.flatMap((one) => one.points);
  const [x0, x1, y0, y1] = box ?? [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0])),
    Math.min(...all.map((p) => p[1])), Math.max(...all.map((p) => p[1]))];
  const px = (x) => PAD.left + ((x - x0) / (x1 - x0 || 1)) * (W - PAD.left - PAD.right);
  const py = (y) => H - PAD.bottom - ((y - y0) / (y1 - y0 || 1)) * (H - PAD.top - PAD.bottom);
  const picture = s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": alt, class: "chart" });
  for (const y of ticks(y0, y1, 5)) {
    picture.append(s("line", { class: "grid", x1: PAD.left, x2: W - PAD.right, y1: py(y), y2: py(y) }),
      s("text", { class: "tick", x: PAD.left - 8, y: py(y) + 4, "text-anchor": "end" }, number(y, digits)));
  }
  for (const x of ticks(x0, x1, 6)) {
    picture.append(s("text", { class: "tick", x: px(x), y: H - PAD.bottom + 18, "text-anchor": "middle" }, String(Number(x.toFixed(2)))));
  }
  picture.append(s("text", { class: "axis", x: (PAD.left + W - PAD.right) / 2, y: H - 4, "text-anchor": "middle" }, xName),
    s("text", { class: "axis", x: 17, y: H / 2 - 10, "text-anchor": "middle", transform: `rotate(-90 17 ${H / 2 - 10})` }, yName));
  series.forEach((one, place) => {
    const path = one.points.map(([x, y], k) => `${k ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
    picture.append(s("path", { class: `line line-${one.dashed ? "ideal" : place}`, d: path }));
    if (one.dots) for (const [x, y] of one.points) picture.append(s("circle", { class: `point-${place}`, cx: px(x), cy: py(y), r: 3.5 }));
  });
  const legend = h("ul", { class: "legend" }, series.map((one, place) =>
    h("li", {}, h("i", { class: `key key-${one.dashed ? "ideal" : place}` }), one.name)));
  return h("figure", {}, picture, legend);
}

/** The items as points; hover, tap or arrow keys choose one. */
export function itemMap(items, isRated, choose) {
  const xs = items.map((row) => row.x);
  const ys = items.map((row) => row.y);
  const [w, height] = [1000, 640];
  const place = (value, values, size) => 40 + ((value - Math.min(...values)) / (Math.max(...values) - Math.min(...values) || 1)) * (size - 80);
  const most = Math.max(...items.map((row) => row.ratings));
  const points = items.map((row) => ({ row, x: place(row.x, xs, w), y: height - place(row.y, ys, height), r: 3 + 9 * Math.sqrt(row.ratings / most) }));
  const picture = s("svg", { viewBox: `0 0 ${w} ${height}`, class: "map", tabindex: 0, role: "application",
    "aria-label": "Item map. Arrow keys go from title to title." });
  const label = s("g", { class: "label", "aria-hidden": "true" }, s("rect", { rx: 6 }), s("text", {}));
  const circles = points.map((point) => s("circle", { cx: point.x, cy: point.y, r: point.r, class: isRated(point.row.item) ? "rated" : "" }));
  const names = named(points);
  picture.append(...circles, ...names, label);
  let chosen = -1;
  const show = (k) => {
    circles[chosen]?.classList.remove("chosen");
    chosen = k;
    const point = points[k];
    circles[k].classList.add("chosen");
    const text = label.lastChild;
    text.textContent = plain(point.row);
    label.classList.add("on");
    const size = text.getBBox();
    const x = Math.min(w - size.width - 14, Math.max(14, point.x - size.width / 2));
    const y = point.y - point.r - 14 < 24 ? point.y + point.r + 24 : point.y - point.r - 10;
    text.setAttribute("x", x);
    text.setAttribute("y", y);
    for (const [name, value] of Object.entries({ x: x - 8, y: y - size.height + 2, width: size.width + 16, height: size.height + 6 })) label.firstChild.setAttribute(name, value);
    choose(point.row);
  };
  const nearest = (event) => {
    const corner = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    const away = points.map((point) => Math.hypot(point.x - corner.x, point.y - corner.y));
    return away.indexOf(Math.min(...away));
  };
  picture.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") { const k = nearest(event); if (k !== chosen) show(k); } });
  picture.addEventListener("click", (event) => show(nearest(event)));
  picture.addEventListener("keydown", (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (!dx && !dy) return;
    event.preventDefault();
    show(chosen < 0 ? 0 : onwards(points, chosen, dx, dy));
  });
  return picture;
}

/** The nearest point in a direction; sideways distance counts twice. */
function onwards(points, from, dx, dy) {
  let [best, least] = [from, Infinity];
  points.forEach((point, k) => {
    const ahead = (point.x - points[from].x) * dx + (point.y - points[from].y) * dy;
    const aside = Math.abs((point.x - points[from].x) * dy) + Math.abs((point.y - points[from].y) * dx);
    if (k !== from && ahead > 0 && ahead + 2 * aside < least) [best, least] = [k, ahead + 2 * aside];
  });
  return best;
}

/** Names beside the most rated points, as many as have room. */
function named(points) {
  const taken = [];
  const made = [];
  for (const point of points) {
    const text = plain(point.row).slice(0, 28);
    const room = { left: point.x + point.r + 4, right: point.x + point.r + 8 + 6.6 * text.length, top: point.y - 9, bottom: point.y + 9 };
    if (room.right > 990 || taken.some((t) => t.left < room.right && room.left < t.right && t.top < room.bottom && room.top < t.bottom)) continue;
    taken.push(room);
    made.push(s("text", { class: "name", x: room.left, y: point.y + 4, "aria-hidden": "true" }, text));
    if (made.length === 45) break;
  }
  return made;
}
