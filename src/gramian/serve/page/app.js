// Starting, light and dark, and going from view to view.

import { get } from "/page/api.js";
import { startForYou } from "/page/foryou.js";
import { colourBy, say, setScale, tried } from "/page/ui.js";
import { showFeatures, showMap, showModel } from "/page/views.js";

const root = document.documentElement;
const saved = localStorage.getItem("theme");
if (saved) root.dataset.theme = saved;

document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});

async function start() {
  say("Reaching the server …");
  const card = await get("model");
  setScale(card.scale);
  say("");
  const shown = { features: showFeatures, map: showMap, model: () => showModel(card) };
  const has = card.abilities.features > 0;
  for (const link of document.querySelectorAll("nav a")) {
    if (!has && ["#features", "#map"].includes(link.getAttribute("href"))) link.hidden = true;
  }

  const go = () => {
    const wanted = location.hash.slice(1);
    const view = document.getElementById(`view-${wanted}`) ? wanted : "for-you";
    for (const section of document.querySelectorAll(".view")) section.hidden = section.id !== `view-${view}`;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = view === "for-you" ? "Gramian" : `${document.querySelector('nav a[aria-current]').textContent} · Gramian`;
    say("");
    if (shown[view]) tried(shown[view]);
  };
  addEventListener("hashchange", go);

  const known = has ? (await get("map?n=2000")).items : [];
  colourBy(known);
  go();
  await startForYou(card, known.slice(0, 40));
  root.dataset.started = "yes";
}

tried(start);
