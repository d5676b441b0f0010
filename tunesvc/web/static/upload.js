"use strict";
// Leaves out of a chosen folder what the server would ignore, and says how much is sent.
// Without it, all files are sent.

const form = document.getElementById("upload");
const folder = document.getElementById("folder");
const archive = document.getElementById("archive");
const chosen = document.getElementById("chosen");
const ignored = new Set(form.dataset.ignored.split(" ").map((name) => name.replace(/\/$/, "")));

function isNeeded(file) {
  return !file.webkitRelativePath.split("/").slice(1, -1).some((name) => ignored.has(name));
}

function show(files) {
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  chosen.textContent = files.length === 0 ? "" : `${files.length} file${files.length === 1 ? "" : "s"}, ${(bytes / 1e6).toFixed(1)} MB`;
}

folder.addEventListener("change", () => {
  const kept = new DataTransfer();
  for (const file of folder.files) if (isNeeded(file)) kept.items.add(file);
  if (kept.files.length < folder.files.length) folder.files = kept.files;
  if (folder.files.length > 0) archive.value = "";
  show([...folder.files]);
});
archive.addEventListener("change", () => {
  if (archive.files.length > 0) folder.value = "";
  show([...archive.files]);
});
