// Puts new tiles in the place of old ones as the server tells of them. The server makes
// the tiles; here they only change places. While the page is hidden nothing is asked.
const place = document.querySelector("[data-live]");
const state = document.querySelector("[data-live-state]");
const RELOAD_MS = 30_000;
let stream = null;
let last = null;

function show(name, word) {
  if (!state) return;
  state.hidden = false;
  state.dataset.liveState = name;
  state.querySelector("[data-live-word]").textContent = word;
}

function replace(key, html) {
  const old = place.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!old) return false;
  const made = document.createElement("template");
  made.innerHTML = html.trim();
  const tile = made.content.firstElementChild;
  if (old.outerHTML === tile.outerHTML) return true;
  // what somebody has opened stays open
  const opened = (element) => [element, ...element.querySelectorAll("*")].filter((e) => e.localName === "details");
  const before = opened(old);
  opened(tile).forEach((each, number) => { each.open = before[number]?.open ?? each.open; });
  const hadFocus = old.contains(document.activeElement);
  if (tile.classList.contains("oc-tile")) tile.classList.add("oc-new");
  old.replaceWith(tile);
  if (hadFocus) tile.querySelector("a")?.focus({ preventScroll: true });
  return true;
}

function shownKeys() {
  return [...place.querySelectorAll("[data-key]")].map((tile) => tile.dataset.key).join();
}

function dateHeading() {
  const heading = document.querySelector("[data-newest]");
  if (!heading) return;
  const times = [...place.querySelectorAll("time")].map((time) => time.dateTime).sort();
  if (!times.length) return;
  heading.dateTime = times.at(-1);
  heading.textContent = times.at(-1).replace("T", " ").replace("Z", "");
}

async function reload() {
  // something that this page does not have yet, or no stream at all
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("[data-live]");
  if (!fresh) return;
  // a plot goes on, and what somebody is typing stays
  for (const kept of place.querySelectorAll("[data-keep]"))
    fresh.querySelector(`[data-keep="${CSS.escape(kept.dataset.keep)}"]`)?.replaceWith(kept);
  place.replaceChildren(...fresh.childNodes);
}

function connect() {
  const url = new URL(place.dataset.live, location.href);
  if (last) url.searchParams.set("after", last);
  stream = new EventSource(url);
  stream.addEventListener("open", () => show("on", "live"));
  stream.addEventListener("trouble", (event) => show("off", event.data));
  stream.addEventListener("tiles", (event) => {
    last = event.lastEventId;
    show("on", "live");
    const { tiles, keys } = JSON.parse(event.data);
    const unknown = Object.entries(tiles).filter(([key, html]) => !replace(key, html));
    if (unknown.length || (keys && keys.join() !== shownKeys())) reload();
    else dateHeading();
  });
  stream.addEventListener("error", () => {
    show("off", "asking again");
    if (stream.readyState === EventSource.CLOSED) {
      // all streams are taken: look now and then instead
      stream = null;
      setTimeout(() => { if (!stream && !document.hidden) reload().finally(connect); }, RELOAD_MS);
    }
  });
}

function pause() {
  stream?.close();
  stream = null;
  show("off", "paused");
}

const ages = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
function age(seconds) {
  if (seconds < 100) return `${ages.format(Math.max(0, seconds))} s`;
  if (seconds < 6000) return `${ages.format(seconds / 60)} min`;
  if (seconds < 172800) return `${ages.format(seconds / 3600)} h`;
  return `${ages.format(seconds / 86400)} days`;
}
setInterval(() => {
  for (const span of document.querySelectorAll("[data-since]"))
    span.textContent = age(Date.now() / 1000 - Number(span.dataset.since));
}, 1000);

if (place?.dataset.live) {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) pause();
    else if (!stream) connect();
  });
  if (!document.hidden) connect();
}
