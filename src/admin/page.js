// Keeps the admin page up to date: takes the parts that changed from this node and puts them in place. Without it the page
// says the same, as of when it was made.
"use strict";

const live = document.getElementById("live");
const words = document.getElementById("live-words");
// No word for so long: what is shown is not what is.
const SILENCE_MS = 5000;
let heard = Date.now();
let asOf = "";

function say(state, text) {
  if (live.dataset.state !== state) live.dataset.state = state;
  if (words.textContent !== text) words.textContent = text;
  document.documentElement.classList.toggle("lost", state === "lost");
}

// An old "All is well" is not shown large; it comes back with the next news, unless they bring another.
const headline = document.getElementById("headline");
let old = null;

function hide() {
  if (old !== null) return;
  old = headline.innerHTML;
  const box = document.createElement("div"), sign = document.createElement("span"), text = document.createElement("div");
  const title = document.createElement("h1"), advice = document.createElement("p");
  box.className = "headline";
  sign.className = "sign";
  sign.ariaHidden = "true";
  sign.textContent = "?";
  title.textContent = "No news";
  advice.textContent = "This node does not answer" + (asOf ? ` since ${asOf}` : "") + ". What stands below is old. The page goes on by itself; ask another node meanwhile.";
  text.append(title, advice);
  box.append(sign, text);
  headline.replaceChildren(box);
}

// What the reader has opened or chosen stays so.
function replace(id, html) {
  const place = document.getElementById(id);
  if (!place) return;
  const open = [...place.querySelectorAll("details[open]")].map((element) => element.id);
  const focused = place.contains(document.activeElement) ? path(place, document.activeElement) : null;
  const scrolled = [...place.querySelectorAll(".wide")].map((element) => element.scrollLeft);
  place.innerHTML = html;
  open.forEach((name) => { const element = document.getElementById(name); if (element) element.open = true; });
  place.querySelectorAll(".wide").forEach((element, index) => { element.scrollLeft = scrolled[index] || 0; });
  if (focused) at(place, focused)?.focus({ preventScroll: true });
  if (id === "partitions") choose(chosen, false);
}

function path(root, element) {
  const steps = [];
  for (; element !== root; element = element.parentNode) steps.unshift([...element.parentNode.children].indexOf(element));
  return steps;
}

function at(root, steps) {
  return steps.reduce((element, index) => element && element.children[index], root);
}

// The map: a cell's details on hover, and by the arrow keys.
let chosen = -1;

function cells() {
  return [...document.querySelectorAll("#map li")];
}

function choose(index, isNew = true) {
  const all = cells();
  all.forEach((cell) => cell.classList.remove("chosen"));
  const cell = all[index];
  chosen = cell ? index : -1;
  if (!cell) return;
  cell.classList.add("chosen");
  const details = document.getElementById("map-details");
  if (details.textContent !== cell.title) details.textContent = cell.title;
  if (isNew) cell.scrollIntoView({ block: "nearest" });
}

document.addEventListener("mouseover", (event) => {
  const cell = event.target.closest && event.target.closest("#map li");
  if (cell) choose(cells().indexOf(cell), false);
});

document.addEventListener("keydown", (event) => {
  if (event.target.id !== "map" || event.altKey || event.ctrlKey || event.metaKey) return;
  const all = cells();
  const top = all.length && all[0].offsetTop;
  const columns = Math.max(1, all.filter((cell) => cell.offsetTop === top).length);
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -all.length, End: all.length };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const start = chosen < 0 ? -Math.sign(moves[event.key]) : chosen;
  choose(Math.min(all.length - 1, Math.max(0, start + moves[event.key])));
});

const events = new EventSource("/api/v1/events?as=parts");
events.addEventListener("parts", (event) => {
  const news = JSON.parse(event.data);
  heard = Date.now();
  asOf = news.now;
  if (old !== null) headline.innerHTML = old;
  old = null;
  for (const part of news.parts) replace(part.id, part.content);
  if (document.title !== news.title) document.title = news.title;
  say("live", "live");
});
setInterval(() => {
  if (Date.now() - heard > SILENCE_MS) {
    say("lost", asOf ? `no news since ${asOf}: what is shown is old` : "no news: what is shown is old");
    hide();
    document.title = "? no news – holdfast";
  }
}, 1000);
addEventListener("pagehide", () => events.close());
