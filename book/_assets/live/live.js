/* The base of the live figures: classic scripts without dependencies, so that they run from file:// too.

A live figure lies over the static one of its notebook cell. `bnbook.plotting.live(NAME)` writes <live-NAME>, and the
build puts it between the picture and the caption. When it can draw, the picture is hidden; the caption, the number, the
link and the alternative text stay. Paper, JupyterLab and readers without JavaScript see the picture. A figure is one
script:

    class Forward extends Live.Figure {
      static batchNorm(x, gamma, beta, eps) { … }   the formula, pure; tests/site/test_live.py compares it with bnbook
      build() { … }                                 once: name this.label, make the controls; this.data is what the
                                                    notebook gave (`live(NAME, **data)`)
      draw(width) { … }                             at every change: return { height, parts, sentence }
    }
    Live.define("forward", Forward);

It draws in CSS pixels at the width it has, so that its letters are as large on a phone as on a desk: letters of at
least 11 px, `width < 480` is a phone. Its height is reserved in live.css, before it can draw.

    this.now.NAME                           what the controls say, kept apart from the fields that HTML elements have
    this.slider(NAME, label, options)       { min, max, step, value, map, text }: `map` makes the value from the position
    this.choice(NAME, label, [[value, label], …])      radio buttons, the first is chosen
    this.buttons(label, [[label, action], …])          returns the buttons
    this.set(NAME, position)                moves a slider or a choice
    this.enable(NAME, whether)              a control that says nothing at the moment is greyed
    this.handle(options)                    something to pull, by pointer, finger and keys; see there
    this.glide(from, to, store)             moves numbers in steps that are drawn; at once where motion is unwanted
    this.redraw()                           after a change that no control made

    Live.line(kind, x1, y1, x2, y2), .rect(kind, x, y, width, height, rx), .circle(kind, x, y, r), .path(kind, d),
    .text(kind, x, y, words, anchor)        parts of a drawing; `kind` are classes of live.css
    Live.scale(low, high, from, to)         values to pixels, and `.back`
    Live.chart({ left, top, right, bottom, x, y })      a frame with ticks, linear or logarithmic; see there
    Live.show(value, digits)                a number to read
    Live.brief(value)                       the same in two digits, small and large ones as powers of ten
    Live.normal(seed)                       normal random numbers, the same on every visit

Colours are classes: live-c1 to live-c8 for parts, live-ink; live-with and live-without for with and without batch
normalization, which nothing else uses. */

(() => {
  "use strict";

  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const PAUSE = 700; // ms without a change until the sentence is spoken

  /** An element with attributes (false, null and undefined are left out) and children. */
  const make = (create) => (tag, attributes = {}, ...children) => {
    const element = create(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  };
  const html = make((tag) => document.createElement(tag));
  const svg = make((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));

  const line = (kind, x1, y1, x2, y2) => svg("line", { class: kind, x1, y1, x2, y2 });
  const rect = (kind, x, y, width, height, rx) => svg("rect", { class: kind, x, y, width, height, rx });
  const circle = (kind, cx, cy, r) => svg("circle", { class: kind, cx, cy, r });
  const path = (kind, d) => svg("path", { class: kind, d });
  const text = (kind, x, y, words, anchor) => svg("text", { class: kind, x, y, "text-anchor": anchor }, words);

  /** A number for reading: a real minus, no minus zero, no trailing zeros. */
  const show = (value, digits = 2) => String(Number(value.toFixed(digits)) + 0).replace("-", "−");

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  /** A linear scale from values to pixels, and back. */
  const scale = (low, high, from, to) => {
    const at = (value) => from + ((value - low) / (high - low)) * (to - from);
    at.back = (pixel) => low + ((pixel - from) / (to - from)) * (high - low);
    return at;
  };

  /** A number in two digits; from ten thousand on and below a thousandth with a power of ten. */
  const brief = (value) => {
    const size = Math.abs(value);
    if (size && (size < 1e-3 || size >= 1e4)) {
      const [digits, power] = value.toExponential(1).split("e");
      const raised = [...String(Number(power))].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
      return Number(digits) === 1 ? `10${raised}` : `${show(Number(digits), 1)}·10${raised}`;
    }
    if (size >= 99.5) return Math.round(value).toLocaleString("en").replace("-", "−");
    return show(Number(value.toPrecision(2)), 5);
  };

  /** A frame with ticks: `parts` draw it, `x` and `y` turn values into pixels and back, `curve(kind, points)` is a part.

  An axis is { from, to, ticks, name, log, show, every }: `show` words the ticks, of which every so-manieth has words. */
  const chart = ({ left, top, right, bottom, x, y }) => {
    const along = ({ from, to, log }, start, end) => {
      if (!log) return scale(from, to, start, end);
      const power = scale(Math.log10(from), Math.log10(to), start, end);
      const at = (value) => power(Math.log10(value));
      at.back = (pixel) => 10 ** power.back(pixel);
      return at;
    };
    const [atX, atY] = [along(x, left, right), along(y, bottom, top)];
    const parts = [];
    x.ticks.forEach((v, i) => {
      parts.push(line("live-grid", atX(v), top, atX(v), bottom));
      if (i % (x.every ?? 1) === 0) parts.push(text("live-tick", atX(v), bottom + 18, (x.show ?? brief)(v), "middle"));
    });
    y.ticks.forEach((v, i) => {
      parts.push(line("live-grid", left, atY(v), right, atY(v)));
      if (i % (y.every ?? 1) === 0) parts.push(text("live-tick", left - 6, atY(v) + 4.5, (y.show ?? brief)(v), "end"));
    });
    parts.push(line("live-axis", left, bottom, right, bottom));
    if (x.name) parts.push(text("live-tick", right, bottom + 36, x.name, "end"));
    if (y.name) parts.push(text("live-tick", Math.max(1, left - 42), top - 12, y.name));
    const curve = (kind, points) => {
      const at = points.map(([a, b]) => `${atX(a).toFixed(1)} ${atY(b).toFixed(1)}`);
      return path(`live-curve ${kind}`, `M${at.join("L")}`);
    };
    return { x: atX, y: atY, parts, curve };
  };

  /** Normal random numbers from uniform ones (mulberry32; Box and Muller). */
  const normal = (seed) => {
    const uniform = () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  };

  let count = 0;

  class Figure extends HTMLElement {
    now = {};
    controls = {};
    handles = [];

    connectedCallback() {
      if (this.stage) return;
      const data = this.querySelector("script")?.textContent;
      this.data = data ? JSON.parse(data) : {};
      this.uid = `live${++count}`;
      this.back = svg("g", { "aria-hidden": "true" });
      this.front = svg("g");
      this.stage = svg("svg", { class: "live-stage", role: "group" }, this.back, this.front);
      this.panel = html("div", { class: "live-panel" });
      this.words = html("p", { class: "live-words" });
      this.spoken = html("p", { class: "live-spoken", role: "status" });
      this.replaceChildren(this.stage, this.panel, this.words, this.spoken);
      try {
        this.build();
        this.draw(600);
      } catch (error) {
        this.replaceChildren(); // the picture stays
        throw error;
      }
      this.stage.setAttribute("aria-label", this.label);
      this.pull();
      this.takePlace();
      new ResizeObserver(() => this.redraw()).observe(this);
      this.redraw();
    }

    /** Hide the picture from the eye: its alternative text is still read. */
    takePlace() {
      const still = this.closest("figure")?.querySelector("img")?.closest("figure > *");
      still?.classList.add("live-still");
      if (still?.matches("a")) still.tabIndex = -1; // a picture in a link: nobody should stop at what is not seen
    }

    redraw() {
      const width = Math.round(this.getBoundingClientRect().width);
      if (!width) return; // folded away
      const { height, parts, sentence } = this.draw(width);
      this.stage.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.stage.style.height = `${height}px`;
      this.back.replaceChildren(...parts);
      this.words.textContent = sentence;
      clearTimeout(this.pause);
      if (this.changed) this.pause = setTimeout(() => (this.spoken.textContent = sentence), PAUSE);
    }

    /** The reader changed something: `action` says what. */
    change(action) {
      this.changed = true;
      action?.();
      this.redraw();
    }

    slider(name, label, { min, max, step = 1, value, map = (v) => v, text = show }) {
      const id = `${this.uid}-${name}`;
      const input = html("input", { type: "range", id, min, max, step, value });
      const output = html("output", { for: id });
      const set = (position) => {
        input.value = position;
        this.now[name] = map(Number(input.value));
        output.textContent = text(this.now[name]);
        input.setAttribute("aria-valuetext", output.textContent);
      };
      input.addEventListener("input", () => this.change(() => set(input.value)));
      const box = html("div", { class: "live-slider" }, html("label", { for: id }, label), output, input);
      this.controls[name] = { set, box, inputs: [input] };
      this.panel.append(box);
      set(value);
    }

    choice(name, label, options) {
      const box = html("fieldset", { class: "live-choice" }, html("legend", {}, label));
      const inputs = options.map(([value, words]) => {
        const input = html("input", { type: "radio", name: `${this.uid}-${name}`, value });
        input.addEventListener("change", () => this.change(() => (this.now[name] = value)));
        box.append(html("label", {}, input, words));
        return input;
      });
      const set = (value) => {
        this.now[name] = value;
        for (const input of inputs) input.checked = input.value === value;
      };
      this.controls[name] = { set, box, inputs };
      this.panel.append(box);
      set(options[0][0]);
    }

    buttons(label, actions) {
      const made = actions.map(([words, action]) => {
        const button = html("button", { type: "button" }, words);
        button.addEventListener("click", () => this.change(action));
        return button;
      });
      this.panel.append(html("div", { class: "live-buttons", role: "group", "aria-label": label }, ...made));
      return made;
    }

    set(name, position) {
      this.controls[name].set(position);
    }

    enable(name, whether) {
      const { box, inputs } = this.controls[name];
      box.classList.toggle("live-off", !whether);
      for (const input of inputs) input.disabled = !whether;
    }

    /** Something to pull; `draw` must place it.

    `label` and `axis` ("x" or "y") say what it is, `read({ x, y })` gives the value under a pointer, `change(value)`
    takes it, rounded to `step`. `colour` is a class; `mark` a letter on it; `shape` a path in place of the dot; `hint`
    shows by arrows, until something was pulled, that it can be. `start` and `end` are called when it is taken hold of
    and let go, by pointer or by keys. `place(x, y, value, { min, max, text })` puts it there; `text` is what is
    spoken for the value. `hide()` takes it out of sight until it is placed again, `remove()` for good. */
    handle({ label, axis, step, colour, mark, shape, hint, read, change, start, end }) {
      const grip = svg("g", {
        class: `live-handle live-${axis} ${colour}`,
        role: "slider",
        tabindex: 0,
        "aria-label": label,
        "aria-orientation": axis === "x" ? "horizontal" : "vertical",
      });
      grip.append(circle("live-reach", 0, 0, 22), circle("live-ring", 0, 0, 14));
      grip.append(shape ? path("live-dot", shape) : circle("live-dot", 0, 0, 9));
      if (mark) grip.append(text("live-mark", 0, 4, mark, "middle"));
      if (hint) grip.append(path("live-hint", "M-14 -4l-4 4l4 4M14 -4l4 4l-4 4"));
      const handle = { grip, read, value: 0, min: 0, max: 0 };
      handle.near = (to) => handle.go(Number((Math.round(to / step) * step).toFixed(9)));
      handle.go = (to) => {
        const next = clamp(to, handle.min, handle.max);
        if (next === handle.value) return;
        this.classList.add("live-pulled");
        this.change(() => change(next));
      };
      handle.place = (x, y, value, { min, max, text = show(value) }) => {
        Object.assign(handle, { x, y, value, min, max });
        grip.removeAttribute("display");
        grip.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)})`);
        for (const [name, now] of Object.entries({ min, max, now: value, text })) grip.setAttribute(`aria-value${name}`, now);
      };
      handle.hide = () => {
        handle.x = Infinity;
        grip.setAttribute("display", "none");
      };
      handle.remove = () => {
        grip.remove();
        this.handles.splice(this.handles.indexOf(handle), 1);
      };
      grip.addEventListener("focus", () => start && this.redraw(start()));
      grip.addEventListener("blur", () => end && this.redraw(end()));
      grip.addEventListener("keydown", (event) => {
        const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
        if (steps) handle.near(handle.value + steps * step);
        else if (event.key === "Home") handle.go(handle.min);
        else if (event.key === "End") handle.go(handle.max);
        else return;
        event.preventDefault();
      });
      this.handles.push(handle);
      this.front.append(grip);
      return handle;
    }

    /** Pulling by pointer: of handles that lie over one another the nearest one is meant. */
    pull() {
      let held = null;
      let offset = 0;
      // A finger that pulls must not scroll the page; `touch-action` is not heeded inside an SVG.
      this.front.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
      this.front.addEventListener("pointerdown", (event) => {
        if (event.button || held) return;
        const { x, y } = this.point(event);
        const distance = (handle) => Math.hypot(handle.x - x, handle.y - y);
        const near = this.handles.reduce((best, handle) => (distance(handle) < distance(best) ? handle : best));
        this.front.setPointerCapture(event.pointerId);
        near.grip.focus({ preventScroll: true, focusVisible: false });
        near.grip.classList.add("live-held");
        offset = near.read({ x, y }) - near.value;
        held = near;
        event.preventDefault();
      });
      this.front.addEventListener("pointermove", (event) => held?.near(held.read(this.point(event)) - offset));
      for (const end of ["pointerup", "pointercancel"]) {
        this.front.addEventListener(end, () => {
          held?.grip.classList.remove("live-held");
          held = null;
        });
      }
    }

    /** Where a pointer is in the drawing. */
    point(event) {
      const box = this.stage.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    }

    glide(from, to, store) {
      cancelAnimationFrame(this.frame);
      const begin = performance.now();
      const step = (time) => {
        const t = still.matches ? 1 : clamp((time - begin) / 350, 0, 1);
        const ease = t * t * (3 - 2 * t);
        store(to.map((v, i) => (t === 1 ? v : from[i] + (v - from[i]) * ease)));
        this.redraw();
        if (t < 1) this.frame = requestAnimationFrame(step);
      };
      step(begin);
    }
  }

  const define = (name, figure) => customElements.define(`live-${name}`, figure);

  window.Live = { Figure, define, html, svg, line, rect, circle, path, text, show, brief, clamp, scale, chart, normal };
})();
