// The other views: latent features, the map, and how good the model is.

import { get } from "/page/api.js";
import { itemMap, lines } from "/page/charts.js";
import { h, number, say, titleOf, tried } from "/page/ui.js";

const byId = (id) => document.getElementById(id);
const cell = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
const stat = (value, name) => h("li", { class: "panel" }, h("b", {}, value), h("span", {}, name));
const whole = (value) => value.toLocaleString("en");

export async function showFeatures() {
  const { features } = await get("features?top=7");
  const end = (rows, name) => h("div", {}, h("h3", {}, name), h("ul", {}, rows.map((row) => h("li", {}, titleOf(row)))));
  byId("features").replaceChildren(...features.map((feature) => h("article", { class: "panel feature" },
    h("h2", {}, `Feature ${feature.feature + 1}`),
    h("div", { class: "ends" }, end(feature.high, "One end"), end(feature.low, "The other")))));
}

export async function showMap() {
  const { items } = await get("map?n=300");
  const rated = new Set(JSON.parse(localStorage.getItem("ratings") ?? "[]").map((row) => row.item));
  const near = h("div", { class: "near", "aria-live": "polite" }, h("p", { class: "hint" }, "Choose a point, with the pointer or the arrow keys, to see what lies near it in all features."));
  let turn = 0;
  const choose = (row) => {
    const mine = (turn += 1);
    setTimeout(() => tried(async () => {
      if (mine !== turn) return;
      const { items: found } = await get(`items/${encodeURIComponent(row.item)}/similar?n=5`);
      if (mine !== turn) return;
      near.replaceChildren(h("h2", {}, titleOf(row)), h("p", { class: "hint" }, `${whole(row.ratings)} ratings. Nearest in all features:`),
        h("ul", { class: "plain" }, found.map((one) => h("li", {}, titleOf(one), h("span", { class: "year" }, ` ${number(one.similarity, 2)}`)))));
    }), 150);
  };
  byId("map").replaceChildren(itemMap(items, (item) => rated.has(item), choose), near);
}

function curves(epochs) {
  const names = { train_rmse: "training", validation_rmse: "validation" };
  const series = Object.entries(names)
    .map(([key, name]) => ({ name, points: epochs.filter((e) => Number.isFinite(e[key])).map((e) => [e.epoch, e[key]]) }))
    .filter((one) => one.points.length > 1);
  if (!series.length) return h("p", { class: "hint" }, "The training kept no record of its errors.");
  const ends = series.map((one) => `${one.name} ends at ${number(one.points.at(-1)[1], 3)}`).join(", ");
  return lines(series, { x: "epoch", y: "RMSE", alt: `Error after each epoch: ${ends}.` });
}

function coverage(calibration) {
  const points = calibration.curve.map((row) => [row.level, row.coverage]);
  const ideal = { name: "as it should be", points: [[0, 0], [1, 1]], dashed: true };
  const said = points.map(([level, share]) => `${Math.round(100 * level)} % intervals hold ${number(100 * share)} %`).join("; ");
  return lines([{ name: "measured", points, dots: true }, ideal], { x: "level of the interval", y: "share of ratings inside",
    alt: `Calibration: ${said}.`, box: [0, 1, 0, 1], digits: 1 });
}

export async function showModel(card) {
  const [history, measured] = await Promise.all([get("history"), get("calibration")]);
  const { name, ...fields } = card.recipe;
  byId("model-lead").textContent = `A model of ${name.toUpperCase()}, learned from ${whole(card.ratings)} ratings by ${whole(card.users)} people of ${whole(card.items)} titles.`;
  const errors = measured.errors;
  const panels = [h("article", { class: "panel" }, h("h2", {}, "Training"), curves(history.epochs))];
  const sure = measured.calibration?.curve.find((one) => Math.abs(one.level - 0.9) < 1e-9);
  if (measured.calibration) panels.push(h("article", { class: "panel" }, h("h2", {}, "Calibration"), coverage(measured.calibration)));
  if (errors) {
    panels.unshift(h("ul", { class: "stats whole", "aria-label": "On ratings it never saw" },
      stat(whole(errors.n), "ratings that it never saw, to measure it with"),
      stat(number(errors.rmse, 3), "root mean squared error"), stat(number(errors.mae, 3), "mean absolute error"),
      sure ? stat(`${number(100 * sure.coverage)} %`, "of them inside its 90 % intervals") : null));
  }
  const settings = Object.entries(fields).filter(([, value]) => value !== null);
  panels.push(h("article", { class: "panel whole" }, h("h2", {}, "Card"),
    h("dl", {}, cell("version", card.version), cell("scale", card.scale.map((end) => number(end)).join(" to ")),
      cell("mean rating", number(card.global_mean, 3)), cell("latent features", card.abilities.features),
      settings.map(([key, value]) => cell(key.replaceAll("_", " "), String(value))))));
  byId("model").replaceChildren(...panels);
  if (measured.measuring) {
    say("Being measured on ratings that it never saw …");
    setTimeout(() => { if (location.hash === "#model") tried(() => showModel(card)); }, 1500);
  } else {
    say(errors ? "" : "The server was given no test ratings (--test), so errors and calibration are not known.");
  }
}
