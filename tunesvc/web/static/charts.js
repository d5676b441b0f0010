"use strict";
// Figures of a study: drawn as they come into view, anew as the study changes, and linked by the trials selected in them.
(() => {
  const figures = document.getElementById("figures");
  if (!figures) return;

  const PAUSE_MS = 500; // between two drawings of a figure, at least; five times as long as it takes to draw
  const SELECTED_MAX = 100;
  const CONFIG = { displaylogo: false, responsive: true, doubleClickDelay: 400, modeBarButtonsToRemove: ["toImage", "autoScale2d"] };

  // --- Plotly: loaded when the first figure comes into view --------------------------------------------------------

  // Plotly writes styles as attributes, which the policy blocks with a complaint; through the DOM it allows them
  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style") this.style.cssText = value; else setAttribute.call(this, name, value);
  };

  let loading = null;

  function plotly() {
    loading ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = figures.dataset.plotly;
      script.addEventListener("load", () => done(window.Plotly));
      script.addEventListener("error", () => { loading = null; failed(new Error("the drawing library did not load")); });
      document.head.append(script);
    });
    return loading;
  }

  // --- colours of the theme ------------------------------------------------------------------------------------------

  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);

  function colour(name) {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  }

  function themed(layout) {
    const [ink, soft, line, card] = ["--ink", "--soft", "--line", "--card"].map(colour);
    layout.font = { ...layout.font, color: ink };
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: card, bordercolor: line, font: { color: ink } };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink };
    layout.newselection = { line: { color: soft } };
    for (const axis of axes(layout, "[xy]")) Object.assign(axis, { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line });
    return layout;
  }

  function axes(layout, letter) {
    const wanted = new RegExp(`^${letter}axis\\d*$`);
    return Object.keys(layout).filter((key) => wanted.test(key)).map((key) => layout[key]);
  }

  // --- which trial a point is ----------------------------------------------------------------------------------------

  const ARRAYS = { i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };

  function decoded(column) {
    if (!column?.bdata) return column ?? [];
    const bytes = Uint8Array.from(atob(column.bdata), (char) => char.charCodeAt(0));
    return new ARRAYS[column.dtype](bytes.buffer);
  }

  function trialsOf(trace) {
    const where = trace.meta?.trials;
    return where ? decoded(trace[where]) : [];
  }

  function trialOf(point) {
    const where = point.data.meta?.trials;
    if (where === "x") return point.x;
    return where === "customdata" ? point.customdata : undefined;
  }

  // --- the trials that are selected ----------------------------------------------------------------------------------

  const selected = new Set((location.hash.match(/^#trials=([\d,]+)$/)?.[1] ?? "").split(",").filter(Boolean).map(Number));
  const panel = document.getElementById("selected");
  let telling = null;

  function select(trials, add = false) {
    if (!add) selected.clear();
    for (const trial of trials) if (selected.size < SELECTED_MAX) selected.add(trial);
    marked();
  }

  function toggle(trial) {
    if (!selected.delete(trial)) selected.add(trial);
    marked();
  }

  function marked() {
    for (const card of cards) card.redraw();
    history.replaceState(history.state, "", selected.size ? `#trials=${[...selected].join(",")}` : location.pathname + location.search);
    clearTimeout(telling);
    telling = setTimeout(tell, 120);
  }

  async function tell() {
    if (!selected.size) { panel.hidden = true; panel.replaceChildren(); return; }
    const asked = [...selected].join(",");
    const answer = await fetch(`${figures.dataset.selected}?trials=${asked}`);
    const html = await answer.text();
    if (!answer.ok || asked !== [...selected].join(",")) return; // another selection came meanwhile
    show(panel, html);
    panel.hidden = false;
  }

  function show(target, html) {
    const parsed = new DOMParser().parseFromString(html, "text/html");
    target.replaceChildren(...parsed.body.childNodes);
  }

  panel.addEventListener("click", (event) => { if (event.target.closest("[data-clear]")) select([]); });

  // --- which trials all figures draw ---------------------------------------------------------------------------------

  const states = document.getElementById("figure-states");

  function chosenStates() {
    const boxes = [...(states?.querySelectorAll("input") ?? [])];
    const checked = boxes.filter((box) => box.checked);
    return checked.length === boxes.length ? [] : checked.flatMap((box) => box.value.split(","));
  }

  // --- one figure ----------------------------------------------------------------------------------------------------

  class Card {
    constructor(element) {
      this.element = element;
      this.plot = element.querySelector("[data-plot]");
      this.note = element.querySelector("[data-note]");
      this.twin = element.querySelector("[data-twin]");
      this.inView = false;
      this.isOld = true; // what is drawn may be older than the study
      this.isAsking = false;
      this.readyAt = 0;
      this.log = {};
      this.revision = 0;
      element.addEventListener("click", (event) => this.onClick(event));
      element.addEventListener("change", () => this.onOptions());
    }

    query() {
      const asked = new URLSearchParams();
      for (const field of this.element.querySelectorAll("select")) if (field.value) asked.append(field.name, field.value);
      if (asked.getAll("p").length < 2) asked.delete("p");
      for (const state of chosenStates()) asked.append("state", state);
      return asked.size ? `?${asked}` : "";
    }

    changed() {
      this.isOld = true;
      this.schedule();
    }

    schedule() {
      if (!this.inView || !this.isOld || document.hidden || this.timer || this.isAsking) return;
      this.timer = setTimeout(() => { this.timer = null; this.ask(); }, Math.max(0, this.readyAt - performance.now()));
    }

    async ask() {
      this.isAsking = true;
      this.isOld = false;
      try {
        const answer = await fetch(this.element.dataset.figure + this.query(), { headers: { Accept: "application/json" } });
        if (answer.ok) await this.take(answer);
        else if (answer.status < 500) this.say(`Not drawn: the dashboard answered with ${answer.status}.`); // and would again
        else throw new Error(`the dashboard answered with ${answer.status}`);
      } catch (error) {
        if (!this.shown) this.say(`Not drawn: ${error.message}.`);
        this.readyAt = performance.now() + 10 * PAUSE_MS;
        this.isOld = true;
      }
      this.isAsking = false;
      this.schedule();
    }

    async take(answer) {
      const freshIn = Number(answer.headers.get("X-Fresh-In"));
      const tag = answer.headers.get("ETag") + this.query();
      if (tag !== this.tag) {
        this.shown = await answer.json();
        await this.draw();
        this.tag = tag;
        if (!this.twin.hidden) this.fillTwin();
      }
      const age = Number(answer.headers.get("X-Age"));
      this.say([this.shown.note, freshIn > 0 && age > 5 ? `as of ${Math.round(age)}s ago` : ""].filter(Boolean).join(" · "));
      if (freshIn > 0) { this.isOld = true; this.readyAt = Math.max(this.readyAt, performance.now() + freshIn * 1000 + 50); }
    }

    say(text) {
      this.note.textContent = text || "\u00a0";
    }

    async draw() {
      const { title, note, figure } = this.shown;
      this.element.querySelector("h2").textContent = title;
      this.plot.setAttribute("aria-label", [title, note, "The same as a table: button Table."].filter(Boolean).join(". "));
      for (const button of this.element.querySelectorAll("[data-save]")) button.disabled = !figure;
      if (!figure) {
        this.plot.replaceChildren();
        this.plot.classList.add("nothing");
        this.plot.textContent = note;
        this.shown.note = "";
        return;
      }
      const library = await plotly();
      if (this.plot.classList.contains("nothing")) { this.plot.classList.remove("nothing"); this.plot.replaceChildren(); }
      const began = performance.now();
      const { data, layout } = this.dressed();
      await library.react(this.plot, data, layout, CONFIG);
      if (!this.isListening) this.listen();
      const before = Number(this.plot.dataset.drawn ?? 0);
      this.plot.dataset.drawn = String(before + 1);
      const cost = before ? performance.now() - began : 0; // the first time says little: everything is set up
      this.readyAt = performance.now() + Math.max(PAUSE_MS, 5 * cost);
    }

    // the figure in the reader's colours, with their logarithms, and with the selected trials marked
    dressed() {
      const { data, layout } = structuredClone(this.shown.figure);
      themed(layout);
      delete layout.template;
      layout.uirevision = this.revision;
      layout.autosize = true;
      for (const letter of ["x", "y"]) {
        for (const axis of axes(layout, letter)) this.scale(axis, letter);
        const own = axes(layout, letter)[0];
        this.element.querySelector(`[data-log="${letter}"]`)?.setAttribute("aria-pressed", String(own?.type === "log"));
      }
      for (const trace of data) shiftMoments(trace, layout);
      const marks = data.flatMap((trace) => this.mark(trace));
      return { data: [...data, ...marks], layout };
    }

    scale(axis, letter) {
      if (this.log[letter] === undefined || !["log", "linear", undefined].includes(axis.type)) return;
      axis.type = this.log[letter] ? "log" : "linear";
      delete axis.dtick;
      delete axis.range;
    }

    mark(trace) {
      const trials = trialsOf(trace);
      if (!trials.length || !selected.size) return [];
      const places = [];
      trials.forEach((trial, i) => { if (selected.has(trial)) places.push(i); });
      if (trace.type === "bar" || (trace.mode?.includes("markers") && !trace.meta.lines)) {
        trace.selectedpoints = places;
        trace.unselected = { marker: { opacity: 0.15 } };
        if (trace.type !== "bar") trace.selected = { marker: { opacity: 1, size: 11 } };
        return [];
      }
      trace.opacity = Math.min(trace.opacity ?? 1, 0.2);
      if (!places.length) return [];
      const [x, y] = [decoded(trace.x), decoded(trace.y)];
      const line = { color: colour("--accent"), width: 3 };
      const told = { customdata: places.map((i) => trials[i]), meta: trace.meta, hovertemplate: trace.hovertemplate };
      return [{ type: "scatter", mode: "lines", x: places.map((i) => x[i]), y: places.map((i) => y[i]), line, showlegend: false, ...told }];
    }

    listen() {
      this.isListening = true;
      this.plot.on("plotly_click", (event) => {
        const trial = trialOf(event.points[0]);
        if (trial === undefined) return;
        if (event.event.shiftKey || event.event.ctrlKey || event.event.metaKey) toggle(trial);
        else location.assign(figures.dataset.trial + trial);
      });
      // drawn again, Plotly selects anew without being asked to
      let isDragging = false;
      this.plot.on("plotly_selecting", () => { isDragging = true; });
      this.plot.on("plotly_selected", (event) => {
        if (!event || !isDragging) return;
        isDragging = false;
        select(event.points.map(trialOf).filter((trial) => trial !== undefined), event.event?.shiftKey);
      });
      this.plot.on("plotly_deselect", () => select([]));
    }

    redraw() {
      if (this.shown?.figure && this.inView) this.draw();
      else if (this.shown?.figure) this.isUndrawn = true;
    }

    onOptions() {
      this.revision += 1;
      this.readyAt = 0;
      const link = this.element.querySelector("[data-csv]");
      if (link) link.href = `${link.href.split("?")[0]}${this.query()}`;
      this.changed();
    }

    async onClick(event) {
      const button = event.target.closest("button");
      if (!button) return;
      if (button.dataset.log) {
        this.log[button.dataset.log] = button.getAttribute("aria-pressed") !== "true";
        this.revision += 1;
        if (this.shown?.figure) this.draw();
      }
      if (button.dataset.save) this.save(button.dataset.save);
      if ("table" in button.dataset) {
        this.twin.hidden = !this.twin.hidden;
        button.setAttribute("aria-expanded", String(!this.twin.hidden));
        if (!this.twin.hidden) this.fillTwin();
      }
    }

    async fillTwin() {
      const answer = await fetch(`${this.element.dataset.figure}/table${this.query()}`);
      if (answer.ok) show(this.twin, await answer.text());
    }

    async save(format) {
      const { data, layout } = this.dressed();
      layout.paper_bgcolor = colour("--card");
      const { width, height } = this.plot.getBoundingClientRect();
      const filename = this.element.dataset.name.replace(/[^\w.-]+/g, "_");
      await (await plotly()).downloadImage({ data, layout }, { format, filename, width: Math.round(width), height: Math.round(height), scale: format === "png" ? 2 : 1 });
    }

    onView(inView) {
      this.inView = inView;
      if (!inView) return;
      if (this.isUndrawn) { this.isUndrawn = false; this.draw(); }
      this.schedule();
    }
  }

  // Plotly shows moments in UTC; the reader lives elsewhere
  function shiftMoments(trace, layout) {
    const where = trace.meta?.moments;
    if (!where) return;
    trace[where] = Array.from(decoded(trace[where]), (at) => at - new Date(at).getTimezoneOffset() * 60000);
    layout.xaxis.title = { text: "" };
  }

  const cards = [...figures.querySelectorAll("[data-figure]")].map((element) => new Card(element));
  const byElement = new Map(cards.map((card) => [card.element, card]));
  const observer = new IntersectionObserver(
    (entries) => { for (const entry of entries) byElement.get(entry.target).onView(entry.isIntersecting); },
    { rootMargin: "300px" },
  );
  for (const card of cards) observer.observe(card.element);
  if (selected.size) tell();

  states?.addEventListener("change", (event) => {
    if (!states.querySelector("input:checked")) event.target.checked = true; // of no state there is nothing to draw
    for (const card of cards) card.onOptions();
  });
  document.body.addEventListener("study-changed", () => { for (const card of cards) card.changed(); });
  document.addEventListener("theme-changed", () => { for (const card of cards) card.redraw(); });
  document.addEventListener("visibilitychange", () => { for (const card of cards) card.schedule(); });
})();
