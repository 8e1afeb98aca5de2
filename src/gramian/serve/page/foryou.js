// The first view: search, rate, and a list that follows every star.

import { get, newName, post } from "/page/api.js";
import { gauge, h, number, plain, say, stars, tinted, titleOf, tried } from "/page/ui.js";

const LEVEL = 0.9;
const N = 10;
const ORDERS = { mean: ["Best", "The highest expected ratings first."],
  lower: ["Safe", "What is surely good first: by the lower end of what the model believes."],
  thompson: ["Surprise", "One of the many tastes that fit your ratings, drawn anew each time."] };
const byId = (id) => document.getElementById(id);

const state = { card: null, ratings: new Map(), titles: new Map(), order: "mean", seed: 1, user: "", known: [], before: [] };

// ---- what is remembered in this browser -------------------------------------------------------------

function remember() {
  const rows = [...state.ratings].map(([item, rating]) => ({ item, rating, title: state.titles.get(item)?.title ?? null }));
  localStorage.setItem("ratings", JSON.stringify(rows));
}

function recall(ids) {
  const kind = ids.item === "integer" ? "number" : "string";
  try {
    for (const { item, rating, title } of JSON.parse(localStorage.getItem("ratings") ?? "[]")) {
      if (typeof item !== kind || !Number.isFinite(rating)) continue;
      state.ratings.set(item, rating);
      state.titles.set(item, { item, title });
    }
  } catch {
    localStorage.removeItem("ratings");
  }
}

// ---- rating -----------------------------------------------------------------------------------------

const shownStars = new Map(); // item → the rows of stars that show it

function starsOf(row) {
  const box = stars(row, state.ratings.get(row.item), (value) => rate(row, value));
  if (!shownStars.has(row.item)) shownStars.set(row.item, new Set());
  shownStars.get(row.item).add(box);
  return box;
}

function rate(row, value) {
  state.titles.set(row.item, row);
  if (value === null) state.ratings.delete(row.item);
  else state.ratings.set(row.item, value);
  for (const box of shownStars.get(row.item) ?? []) {
    if (box.isConnected) box.shown(value);
    else shownStars.get(row.item).delete(box);
  }
  remember();
  showRated();
  if (state.user && value !== null) tried(() => keep(row, value));
  else refreshSoon();
}

async function keep(row, value) {
  const ratings = [{ user: state.user, item: row.item, rating: value }];
  await post("ratings", { ratings }, { headers: { "Idempotency-Key": newName() } });
  say(`Kept: ${plain(row)}, ${number(value)}.`);
  await refresh();
}

/** One line with a title and stars, kept while it is shown, so that the focus stays where it is. */
function line(row, remove) {
  const buttons = remove
    ? h("button", { type: "button", class: "quiet cross", "aria-label": `Remove the rating of ${plain(row)}`, onclick: () => rate(row, null) }, "×")
    : null;
  return tinted(h("li", { "data-item": row.item }, h("i", { class: "tint", "aria-hidden": "true" }), titleOf(row), starsOf(row), buttons), row.item);
}

/** Make a list show these rows in this order; lines that were there stay the same elements. */
function reconcile(list, rows, make) {
  const there = new Map([...list.children].map((element) => [element.dataset.item, element]));
  const wanted = rows.map((row, place) => {
    const element = there.get(String(row.item));
    there.delete(String(row.item));
    return element ?? make(row, place);
  });
  for (const gone of there.values()) gone.remove();
  wanted.forEach((element, place) => {
    if (list.children[place] !== element) list.insertBefore(element, list.children[place] ?? null);
  });
}

function showRated() {
  const rows = [...state.ratings.keys()].reverse().map((item) => state.titles.get(item));
  byId("rated-box").hidden = rows.length === 0;
  byId("rated-count").textContent = rows.length;
  reconcile(byId("rated"), rows, (row) => line(row, !state.user));
}

// ---- searching --------------------------------------------------------------------------------------

let typed = 0;

function showFound(head, rows) {
  byId("found-head").textContent = head;
  reconcile(byId("found"), rows, (row) => line(row, false));
}

async function search() {
  const query = byId("query").value.trim();
  const turn = (typed += 1);
  if (!query) return showFound("Well known", state.known.filter((row) => !state.ratings.has(row.item)).slice(0, 6));
  const { items } = await get(`items?n=8&q=${encodeURIComponent(query)}`);
  if (turn === typed) showFound(items.length ? "Found" : "Nothing has these words in its title", items);
}

async function askMost() {
  say("Looking for what would tell most …");
  const { items } = await post("ask", { ...whom(), n: 6 });
  showFound("These would tell most", items);
  say("");
}

// ---- the list ---------------------------------------------------------------------------------------

function whom() {
  return state.user ? { user: state.user } : { ratings: Object.fromEntries(state.ratings) };
}

let running = null;
let waiting = 0;

/** What the list shows is no longer what is asked for: it is busy until it is, or until asking has failed. */
function outdated() {
  clearTimeout(waiting);
  running?.abort();
  running = null;
  byId("list").setAttribute("aria-busy", "true");
}

function refreshSoon() {
  outdated();
  waiting = setTimeout(() => tried(refresh), 60);
}

async function refresh() {
  outdated();
  const mine = (running = new AbortController());
  const asked = { n: N, order: state.order, seed: state.seed, level: LEVEL, intervals: state.card.abilities.intervals };
  try {
    const { items } = await post("recommend", { ...whom(), ...asked, unknown: "fallback" }, { signal: mine.signal });
    showList(items);
  } finally {
    if (running === mine) byId("list").setAttribute("aria-busy", "false");
  }
}

function showList(rows) {
  const list = byId("list");
  const places = new Map([...list.children].map((element) => [element.dataset.item, element.getBoundingClientRect().top]));
  const ranks = new Map(state.before.map((item, place) => [item, place]));
  const open = list.querySelector("li.open")?.dataset.item;
  const made = rows.map((row, place) => card(row, place, state.before.length ? ranks.get(row.item) : place));
  list.replaceChildren(...made);
  for (const element of made) if (element.dataset.item === open) element.querySelector(".why-button")?.click();
  moved(made, places);
  state.before = rows.map((row) => row.item);
  const count = state.ratings.size;
  byId("list-head").textContent = state.user ? `For user ${state.user}` : count ? "For you" : "Loved by most";
  say("");
  if (count) say(`The list follows ${count === 1 ? "one rating" : `${count} ratings`}: first is ${rows[0] ? plain(rows[0]) : "nothing"}.`);
}

/** Let lines glide from where they were; new ones fade in. */
function moved(elements, places) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const element of elements) {
    const before = places.get(element.dataset.item);
    const now = element.getBoundingClientRect().top;
    const frames = before === undefined
      ? [{ opacity: 0, transform: "translateY(12px)" }, { opacity: 1, transform: "none" }]
      : [{ transform: `translateY(${before - now}px)` }, { transform: "none" }];
    if (before !== now) element.animate(frames, { duration: 320, easing: "cubic-bezier(.2,.8,.2,1)" });
  }
}

function card(row, place, before) {
  const news = before === undefined ? "new" : before > place ? `▲ ${before - place}` : before < place ? `▼ ${place - before}` : "";
  const more = h("div", { class: "more", hidden: true });
  const element = h("li", { class: "pick", "data-item": row.item },
    h("span", { class: "rank", "aria-hidden": "true" }, place + 1),
    h("div", { class: "head" }, titleOf(row), news ? h("span", { class: `news ${before === undefined ? "" : before > place ? "up" : "down"}`, "aria-hidden": "true" }, news) : null),
    gauge(row, LEVEL), starsOf(row),
    h("div", { class: "buttons" },
      state.card.abilities.explain ? opener("Why", "why-button", element_ => why(row, element_), more) : null,
      state.card.abilities.features ? opener("Similar", "similar-button", element_ => similar(row, element_), more) : null),
    more);
  return tinted(element, row.item);
}

/** A button that opens what it has to show below, and closes it again. */
function opener(text, name, fill, more) {
  const button = h("button", { type: "button", class: `quiet text ${name}`, "aria-expanded": "false" }, text);
  button.addEventListener("click", () => tried(async () => {
    const opening = button.getAttribute("aria-expanded") === "false";
    for (const other of button.parentElement.children) other.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-expanded", String(opening));
    more.parentElement.classList.toggle("open", opening && name === "why-button");
    more.hidden = !opening;
    if (opening) await fill(more);
  }));
  return button;
}

async function why(row, more) {
  const found = await post("explain", { ...whom(), item: row.item, n: 5 });
  const largest = Math.max(...found.reasons.map((reason) => Math.abs(reason.contribution)), 1e-9);
  const bars = found.reasons.map((reason) => {
    const bar = h("i", { class: reason.contribution < 0 ? "bar less" : "bar" });
    bar.style.width = `${Math.max(2, (100 * Math.abs(reason.contribution)) / largest)}%`;
    const sign = reason.contribution < 0 ? "−" : "+";
    return h("li", {}, h("span", {}, `You gave ${number(reason.rating)} to `, titleOf(reason)),
      h("span", { class: "bar-box", "aria-hidden": "true" }, bar), h("b", {}, `${sign}${number(Math.abs(reason.contribution), 2)}`));
  });
  const rest = h("p", { class: "hint" }, `Without any of this: ${number(found.rest, 2)}, from means and biases: how good it is to everybody, and how you rate.`);
  more.replaceChildren(...(bars.length
    ? [h("p", { class: "hint" }, "What your ratings add through the latent features, strongest first:"), h("ul", { class: "reasons" }, bars), rest]
    : [h("p", { class: "hint" }, "Nothing is known of you yet: this is what everybody likes.")]));
}

async function similar(row, more) {
  const { items } = await get(`items/${encodeURIComponent(row.item)}/similar?n=5`);
  const rows = items.map((one) => line(one, false));
  more.replaceChildren(h("p", { class: "hint" }, `Liked by the same people as ${plain(row)}:`), h("ul", { class: "rows" }, rows));
}

// ---- starting ---------------------------------------------------------------------------------------

function showOrders(orders) {
  const box = byId("orders");
  box.hidden = orders.length < 2;
  for (const order of orders) {
    const input = h("input", { type: "radio", name: "order", value: order });
    input.checked = order === state.order;
    const choose = () => {
      state.order = order;
      state.seed = order === "thompson" ? Math.floor(Math.random() * 2 ** 31) : 1;
      byId("list-hint").textContent = ORDERS[order][1];
      tried(refresh);
    };
    input.addEventListener("change", choose);
    // a chosen surprise, chosen again, is another one
    input.addEventListener("click", () => { if (order === "thompson" && state.order === order) choose(); });
    box.append(h("label", {}, input, h("span", {}, ORDERS[order][0])));
  }
  byId("list-hint").textContent = ORDERS[state.order][1];
}

function showWho() {
  const box = byId("who");
  box.hidden = false;
  const input = h("input", { id: "user", autocomplete: "off", maxlength: 200, placeholder: "your user id", "aria-label": "User id" });
  box.append(h("label", {}, "Keep my ratings as user ", input));
  input.addEventListener("change", () => tried(async () => {
    state.user = input.value.trim();
    state.ratings.clear();
    if (state.user) {
      const found = await get(`users/${encodeURIComponent(state.user)}/ratings`);
      const whole = state.card.ids.item === "integer";
      for (const [text, rating] of Object.entries(found.ratings)) {
        const item = whole ? Number(text) : text;
        state.ratings.set(item, rating);
        state.titles.set(item, state.titles.get(item) ?? { item, title: null });
      }
    } else {
      recall(state.card.ids);
    }
    byId("rated").replaceChildren();
    showRated();
    await refresh();
  }));
}

export async function startForYou(card, known) {
  state.card = card;
  state.known = known;
  for (const row of known) state.titles.set(row.item, row);
  recall(card.ids);
  showOrders(card.abilities.orders);
  if (card.feedback) showWho();
  byId("ask").hidden = !card.abilities.ask;
  byId("ask").addEventListener("click", () => tried(askMost));
  byId("search").addEventListener("submit", (event) => event.preventDefault());
  let timer = 0;
  byId("query").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => tried(search), 120); });
  byId("query").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "Enter") return;
    event.preventDefault();
    byId("found").querySelector("input")?.focus();
  });
  byId("clear").addEventListener("click", () => {
    for (const item of [...state.ratings.keys()]) rate(state.titles.get(item), null);
    byId("query").focus();
  });
  showRated();
  await search();
  await refresh();
}
