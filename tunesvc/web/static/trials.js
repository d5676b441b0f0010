"use strict";
// A table of trials: keys move from row to row, and rows that run change in place.

const trials = document.getElementById("trials");
// --- keys -------------------------------------------------------------------------------------------

function move(by) {
  const links = [...trials.querySelectorAll("tbody th a")];
  const at = links.indexOf(document.activeElement?.closest("tr")?.querySelector("th a"));
  const next = links[Math.min(links.length - 1, Math.max(0, at + by))];
  if (!next) return;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input[type=text], input:not([type]), textarea, select, dialog")) return;
  const row = event.target.closest("#trials tbody tr");
  const by = { j: 1, k: -1 }[event.key] ?? (row ? { ArrowDown: 1, ArrowUp: -1 }[event.key] : undefined);
  if (by) { event.preventDefault(); move(by); }
  if (event.key === "x" && row) row.querySelector("input[name=trials]")?.click();
});

// --- rows that run ----------------------------------------------------------------------------------

let asking = false;
let again = false;

async function refresh() {
  if (asking || document.hidden) { again = true; return; }
  asking = true;
  again = false;
  try {
    await replaceLive();
  } catch {
    // the banner says that the dashboard is away; the next change asks again
  } finally {
    asking = false;
  }
  if (again) setTimeout(refresh, 1000);
}

async function replaceLive() {
  const table = trials.querySelector("table");
  if (!table) return;
  const query = new URLSearchParams(table.dataset.query);
  const live = [...trials.querySelectorAll("tr[data-live]")].slice(0, 500);
  for (const row of live) query.append("number", row.dataset.number);
  const answer = await fetch(`${trials.dataset.rows}?${query}`, { headers: { "HX-Request": "true" } });
  if (!answer.ok) return;
  const made = document.createElement("template");
  made.innerHTML = await answer.text();
  for (const row of made.content.querySelectorAll("tr[data-number]")) swap(row);
  document.dispatchEvent(new Event("rows-changed"));
  showNewer(Number(answer.headers.get("X-Trials")) - Number(table.dataset.total));
}

function swap(row) {
  const old = document.getElementById(row.id);
  if (!old) return;
  const focused = old.contains(document.activeElement);
  old.replaceWith(row);
  showTimes(row);
  if (focused) row.querySelector("th a").focus();
}

function showNewer(count) {
  const link = document.getElementById("newer");
  link.hidden = !(count > 0);
  link.textContent = `${count} new: show`;
}

let due;
document.body.addEventListener("study-changed", () => {
  clearTimeout(due);
  due = setTimeout(refresh, 300);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && again) refresh(); });
