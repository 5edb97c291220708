// Follows a log: the server makes the messages, here they are put at the end, and old ones
// are taken from the beginning. Who has scrolled up is left alone.
const list = document.querySelector("[data-log]");
const button = document.querySelector("[data-pause]");
const silent = document.querySelector("[data-silent]");
const nothing = document.querySelector("[data-nothing]");
const state = document.querySelector("[data-live-state]");
const kept = Number(list.dataset.kept);
const NEAR_PX = 40;
const AGAIN_MS = 30_000;
let stream = null;
let isPaused = false;

function show(name, word) {
  state.hidden = false;
  state.dataset.liveState = name;
  state.querySelector("[data-live-word]").textContent = word;
}

function isAtEnd() {
  return list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX;
}

function take({ replace, html, silent: away }) {
  const follows = isAtEnd();
  const made = document.createElement("template");
  made.innerHTML = html;
  if (replace) list.replaceChildren(made.content);
  else list.append(made.content);
  while (list.childElementCount > kept) list.firstElementChild.remove();
  if (silent.innerHTML !== away) silent.innerHTML = away;
  nothing.hidden = list.childElementCount > 0;
  if (follows) list.scrollTop = list.scrollHeight;
}

function connect() {
  stream = new EventSource(list.dataset.log);
  stream.addEventListener("open", () => show("on", "live"));
  stream.addEventListener("trouble", (event) => show("off", event.data));
  stream.addEventListener("messages", (event) => {
    show("on", "live");
    take(JSON.parse(event.data));
  });
  stream.addEventListener("error", () => {
    show("off", "asking again");
    if (stream.readyState === EventSource.CLOSED) {
      // all streams are taken
      stream = null;
      setTimeout(choose, AGAIN_MS);
    }
  });
}

function choose() {
  const wanted = !isPaused && !document.hidden;
  if (wanted && !stream) connect();
  if (!wanted) {
    stream?.close();
    stream = null;
    show("off", "paused");
  }
}

button.hidden = false;
button.addEventListener("click", () => {
  isPaused = !isPaused;
  button.setAttribute("aria-pressed", String(isPaused));
  button.textContent = isPaused ? "Follow again" : "Pause";
  choose();
});
document.addEventListener("visibilitychange", choose);
list.scrollTop = list.scrollHeight;
choose();
