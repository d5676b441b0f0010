// A Stop button for a run. It is visible while the kernel beats: a notebook that was saved, or whose kernel has ended,
// has no use for one.
const SILENT_MS = 20000;

function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  button.hidden = true;
  button.style.cssText = "font: 13px system-ui, sans-serif; padding: 3px 14px; margin: 2px 0; cursor: pointer;"
    + "color: inherit; background: none; border: 1px solid rgb(128 128 128 / .6); border-radius: 6px";
  let silence;

  function show() {
    const state = model.get("state");
    button.disabled = state !== "running";
    button.style.opacity = button.disabled ? ".6" : "1";
    button.textContent = state === "running" ? "Stop" : "Stopping once everything is recorded …";
    button.title = "Ends the run in order; the study can be resumed";
  }
  function beat() {
    button.hidden = model.get("state") === "ended";
    clearTimeout(silence);
    silence = setTimeout(() => { button.hidden = true; }, SILENT_MS);
  }
  function click() {
    model.send({ stop: true });
    model.set("state", "stopping");
    show();
  }

  show();
  button.addEventListener("click", click);
  model.on("change:state", show);
  model.on("change:beat", beat);
  el.append(button);
  return () => {
    clearTimeout(silence);
    model.off("change:state", show);
    model.off("change:beat", beat);
  };
}

export default { render };
