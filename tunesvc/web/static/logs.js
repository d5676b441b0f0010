"use strict";
// A trial's output: goes on by itself, follows its end if asked to, and forgets the oldest of what is too much for a page.
(() => {
  const box = document.getElementById("output");
  if (!box) return;
  const lines = box.querySelector(".lines");
  const follow = box.querySelector("[data-follow-log]");
  const PIECES_MAX = 4000;
  let asking = false;

  function toEnd() {
    if (follow.checked) lines.scrollTop = lines.scrollHeight;
  }

  function forget() {
    const pieces = lines.querySelectorAll("pre");
    for (const piece of [...pieces].slice(0, Math.max(0, pieces.length - PIECES_MAX))) piece.remove();
  }

  async function more() {
    if (asking || document.hidden || !lines.dataset.ready) return;
    asking = true;
    try {
      while (await next());
    } catch {
      // the banner says that the dashboard is away; the next change asks again
    } finally {
      asking = false;
    }
  }

  // whether there was anything
  async function next() {
    const last = [...lines.querySelectorAll("pre")].at(-1);
    const answer = await fetch(`${box.dataset.logs}?after=${last?.dataset.at ?? "0-0"}`, { headers: { "HX-Request": "true" } });
    if (!answer.ok) return false;
    const made = document.createElement("template");
    made.innerHTML = await answer.text();
    const found = made.content.querySelectorAll("pre");
    if (!found.length) return false;
    lines.querySelector(".note")?.remove();
    lines.append(...found);
    forget();
    toEnd();
    return true;
  }

  lines.addEventListener("htmx:afterSwap", () => {
    if (!lines.dataset.ready) toEnd();
    lines.dataset.ready = "true";
  });
  // whoever scrolls up wants to read
  lines.addEventListener("scroll", () => {
    if (lines.scrollTop + lines.clientHeight < lines.scrollHeight - 60) follow.checked = false;
  });
  follow.addEventListener("change", toEnd);
  for (const choice of box.querySelectorAll("[data-stream]")) {
    choice.addEventListener("change", () => lines.classList.toggle(`no-${choice.dataset.stream}`, !choice.checked));
  }
  let due;
  document.body.addEventListener("study-changed", () => {
    clearTimeout(due);
    due = setTimeout(more, 500);
  });
  document.addEventListener("visibilitychange", more);
})();
