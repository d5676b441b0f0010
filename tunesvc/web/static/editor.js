"use strict";
// Line numbers and marks beside the text of a study. Without it, the text is a plain text area.

const text = document.getElementById("text");
const gutter = document.getElementById("gutter");
const verdict = document.getElementById("verdict");

function number() {
  const lines = text.value.split("\n").length;
  while (gutter.children.length > lines) gutter.lastChild.remove();
  while (gutter.children.length < lines) {
    const line = document.createElement("span");
    line.textContent = String(gutter.children.length + 1);
    gutter.append(line);
  }
}

function mark() {
  for (const line of gutter.children) line.className = "";
  for (const fault of verdict.querySelectorAll("[data-line]")) {
    gutter.children[Number(fault.dataset.line) - 1]?.classList.add("wrong");
  }
}

function goTo(line) {
  const before = text.value.split("\n").slice(0, line - 1);
  const start = before.reduce((sum, one) => sum + one.length + 1, 0);
  const end = text.value.indexOf("\n", start);
  text.focus();
  text.setSelectionRange(start, end < 0 ? text.value.length : end);
  text.scrollTop = Math.max(0, (line - 5) * parseFloat(getComputedStyle(text).lineHeight));
}

text.addEventListener("input", () => { number(); mark(); });
text.addEventListener("scroll", () => { gutter.scrollTop = text.scrollTop; });
verdict.addEventListener("click", (event) => {
  const button = event.target.closest("[data-goto]");
  if (button) goTo(Number(button.dataset.goto));
});
// what was written outlives leaving the page, until a study is made of it
const form = document.getElementById("new");
const draft = `draft ${location.pathname}${location.search}`;
const begun = text.value;
const kept = localStorage.getItem(draft);
if (kept !== null && form.dataset.fresh !== undefined) {
  text.value = kept;
  document.getElementById("restored").hidden = kept === begun;
}
document.getElementById("restored").addEventListener("click", (event) => {
  if (!event.target.closest("button")) return;
  text.value = begun;
  document.getElementById("restored").hidden = true;
  text.dispatchEvent(new Event("input", { bubbles: true }));
});
text.addEventListener("input", () => localStorage.setItem(draft, text.value));
form.addEventListener("submit", (event) => { if (!event.submitter?.formAction.endsWith("/download")) localStorage.removeItem(draft); });
addEventListener("load", () => { if (text.value !== begun) text.dispatchEvent(new Event("input", { bubbles: true })); });

document.body.addEventListener("htmx:afterSwap", (event) => { if (event.target === verdict) mark(); });
number();
mark();
