"use strict";
// before the first paint: the reader's choice, else the system's
(() => {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
})();
