"use strict";
// Rows that are selected for a comparison: <form id="compare" data-name="trials">, checkboxes and a button of that form
// anywhere. A selection outlives changes of the table, and counts rows that are on no page that is shown.
(() => {
  const form = document.getElementById("compare");
  const selected = new Set();
  const boxes = () => document.querySelectorAll(`input[form="compare"][name="${form.dataset.name}"]`);

  function show() {
    for (const box of boxes()) box.checked = selected.has(box.value);
    const button = document.querySelector('button[form="compare"]');
    if (!button) return;
    button.disabled = selected.size < 2;
    button.textContent = selected.size ? `Compare ${selected.size} selected` : "Compare selected";
  }

  document.addEventListener("change", (event) => {
    if (!event.target.matches(`input[form="compare"][name="${form.dataset.name}"]`)) return;
    if (event.target.checked) selected.add(event.target.value); else selected.delete(event.target.value);
    show();
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const asked = new URLSearchParams();
    for (const field of form.querySelectorAll("input[type=hidden]")) asked.set(field.name, field.value);
    location.assign(`${form.getAttribute("action")}?${asked}${asked.size ? "&" : ""}${form.dataset.name}=${[...selected].join(",")}`);
  });

  document.body.addEventListener("htmx:afterSwap", show);
  document.addEventListener("rows-changed", show);
  show();
})();
