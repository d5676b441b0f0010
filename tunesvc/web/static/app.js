"use strict";
// What every page does: theme, times in the reader's zone, live changes, keys, messages. No page needs it to be read.

const dark = matchMedia("(prefers-color-scheme: dark)");

function theme() {
  return document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
}

document.getElementById("theme").addEventListener("click", () => {
  const next = theme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
  document.dispatchEvent(new CustomEvent("theme-changed"));
});
dark.addEventListener("change", () => document.dispatchEvent(new CustomEvent("theme-changed")));

// --- times ------------------------------------------------------------------------------------------

const UNITS = [["d", 86400, "h", 3600], ["h", 3600, "m", 60], ["m", 60, "s", 1]];

function ago(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  for (const [unit, size, part, partSize] of UNITS) {
    if (whole >= size) {
      return `${Math.floor(whole / size)}${unit} ${String(Math.floor((whole % size) / partSize)).padStart(2, "0")}${part} ago`;
    }
  }
  return `${whole}s ago`;
}

function showTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const local = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    time.textContent = "ago" in time.dataset ? ago((Date.now() - at) / 1000) : local;
    time.title = "ago" in time.dataset ? local : at.toISOString();
  }
}

showTimes();
setInterval(() => { if (!document.hidden) showTimes(); }, 10000);
document.body.addEventListener("htmx:afterSwap", () => showTimes());

// --- what changes -----------------------------------------------------------------------------------

// Parts of the page that follow changes carry hx-trigger="study-changed from:body"; a page about one study says
// which in <body data-study>.
const stale = document.getElementById("stale");

function showStale(text) {
  stale.textContent = text;
  stale.hidden = !text;
}

function clock(at) {
  return new Date(at).toLocaleTimeString(undefined, { timeStyle: "medium" });
}

// Not more often than this, but always once more after the last change. A trigger needs no `throttle` of its own: htmx
// forgets what comes while it waits, and so the last change.
const OPENING_MS = 700; // a page whose stream is not open yet asks by itself so often
const PAUSES_MS = { "study-changed": 600, "study-changed-calmly": 10000 };
const readyAt = {};
const telling = {};

function changed(studies) {
  const own = Number(document.body.dataset.study);
  if (studies && own && !studies.includes(own)) return;
  for (const [name, pause] of Object.entries(PAUSES_MS)) {
    telling[name] ??= setTimeout(() => {
      delete telling[name];
      readyAt[name] = performance.now() + pause;
      document.body.dispatchEvent(new CustomEvent(name));
    }, Math.max(0, (readyAt[name] ?? 0) - performance.now()));
  }
}

let heardAt = Date.now();
let position = document.body.dataset.position; // of the changes that this page shows, as the server counts them
let events = null;
let opening = null;

function heard(event) {
  heardAt = Date.now();
  position = event.lastEventId;
}

function listen() {
  if (events || document.hidden) return;
  events = new EventSource(document.body.dataset.events);
  clearInterval(opening);
  opening = setInterval(() => changed(), OPENING_MS);
  events.addEventListener("open", () => {
    clearInterval(opening);
    showStale("");
  });
  // the first event of a stream; what came before it was not heard
  events.addEventListener("position", (event) => {
    if (event.lastEventId !== position) changed();
    heard(event);
  });
  events.addEventListener("changed", (event) => { heard(event); changed(JSON.parse(event.data)); });
  events.addEventListener("stale", (event) => {
    const { since, reason } = JSON.parse(event.data);
    showStale(`Stale since ${clock(since)}: the database is away (${reason}). Running trials go on.`);
  });
  events.addEventListener("fresh", () => {
    showStale("");
    changed();
  });
  events.addEventListener("error", () => {
    clearInterval(opening);
    showStale(`Stale since ${clock(heardAt)}: the dashboard does not answer; this page tries again by itself.`);
    if (events?.readyState === EventSource.CLOSED) retry();
  });
}

function leave() {
  clearInterval(opening);
  events?.close();
  events = null;
}

// an answer other than a stream (a proxy's, or one that asks for a key) ends a stream for good
function retry() {
  leave();
  setTimeout(async () => {
    const asked = new AbortController();
    const status = await fetch(document.body.dataset.events, { signal: asked.signal }).then((answer) => answer.status, () => 0);
    asked.abort();
    if (status === 401) location.reload(); else listen();
  }, 3000);
}

// browsers hold six connections to a server, for all tabs together: hidden tabs must not take them
document.addEventListener("visibilitychange", () => { if (document.hidden) leave(); else listen(); });
addEventListener("pagehide", leave);
addEventListener("pageshow", listen);
listen();

// a part that follows changes asks with the address of the moment
document.body.addEventListener("htmx:configRequest", (event) => {
  if ("follow" in event.target.dataset) event.detail.path = location.pathname + location.search;
});

// --- what is put in anew ------------------------------------------------------------------------------

// hx-swap="morph:innerHTML" changes only what differs, so scroll, focus and ticks stay. What the page itself has set
// stays too: opened menus, ticks, times in the reader's zone, and what stands in an element with data-own.
// A link may become another one so. htmx-config has no settle delay, in which it would still do what it did before.
Idiomorph.defaults.callbacks.beforeNodeMorphed = (old, next) => {
  if (!(old instanceof Element) || !(next instanceof Element)) return true;
  if (old.matches("time[datetime]")) return old.dateTime !== next.dateTime;
  return !("own" in old.dataset);
};
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
  !(name === "open" && node.matches("details")) && !(name === "checked" && node.matches("[type=checkbox]"));

// --- messages ---------------------------------------------------------------------------------------

function toast(text, kind = "info") {
  const made = document.createElement("p");
  made.className = `toast ${kind}`;
  made.textContent = text;
  document.getElementById("toasts").append(made);
  setTimeout(() => made.remove(), kind === "bad" ? 12000 : 5000);
}

document.body.addEventListener("htmx:responseError", (event) => {
  const answer = event.detail.xhr;
  if (answer.status === 401) { location.reload(); return; }
  const text = new DOMParser().parseFromString(answer.responseText, "text/html").querySelector("main p")?.textContent;
  const told = text || `The dashboard answered with ${answer.status}.`;
  const fault = event.target.querySelector?.("[data-fault]");
  if (!fault) { toast(told, "bad"); return; }
  fault.textContent = told;
  fault.hidden = false;
});
document.body.addEventListener("message", (event) => toast(event.detail.text, event.detail.kind));

// --- actions ----------------------------------------------------------------------------------------

// a form that is fetched into the dialog is shown; what it asks for is told as a message, a mistake in it beside it
const dialog = document.getElementById("dialog");

document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.target !== dialog) return;
  closeMenus();
  if (!dialog.open) dialog.showModal();
  (dialog.querySelector("[autofocus]") || dialog.querySelector("[data-close]"))?.focus();
});
document.body.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful && event.target.matches("dialog form")) dialog.close();
});
dialog.addEventListener("close", () => dialog.replaceChildren());

// --- menus ------------------------------------------------------------------------------------------

// a menu closes by Escape, by a click outside, and when another one opens
function closeMenus(but) {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (menu !== but) menu.open = false;
}

document.addEventListener("click", (event) => closeMenus(event.target.closest("details.menu")));
document.addEventListener("keydown", (event) => {
  const menu = event.target.closest?.("details.menu[open]") ?? document.querySelector("details.menu[open]");
  if (event.key !== "Escape" || !menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

// --- keys -------------------------------------------------------------------------------------------

// an element with data-key="x" is focused or clicked when x is pressed outside of a field
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const wanted = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!wanted) return;
  event.preventDefault();
  if (wanted.matches("input, select, textarea")) wanted.focus(); else wanted.click();
});

// a button with data-copy="ID" copies that element's text; one with data-open="ID" opens that dialog
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy], [data-open], [data-close]");
  if (!button) return;
  if (button.dataset.copy) {
    const text = document.getElementById(button.dataset.copy).textContent;
    navigator.clipboard.writeText(text).then(() => toast("Copied."), () => toast("The browser did not allow to copy.", "bad"));
  }
  if (button.dataset.open) document.getElementById(button.dataset.open).showModal();
  if ("close" in button.dataset) button.closest("dialog").close();
});
