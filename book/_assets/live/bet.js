/* <live-bet>: what do you expect? A verdict is picked or a curve drawn, then the result is shown. Part III.

The result, which is the output of the same cell, is veiled until the reader has bet or wants to see it without. Bets are
kept in this browser and nowhere else. Data of the notebook: `id`, `title`, `question`, and for a verdict `options`
([value, words]), `verdict` (a value, or null: there is none yet), `found` (its sentence), `conditions` ({ name, mean, low,
high }), `delta`, `unit`; for a curve `x`, `y`, `low`, `high` (the values, and the ends of the axis), `xname`, `yname`. */

(() => {
  "use strict";
  const { Figure, define, html, line, rect, circle, text, show, brief, clamp, chart, scale } = Live;

  const KEY = "bnbook-bets";

  /** All bets of this browser, by id. Where nothing may be kept, they last as long as the page. */
  const store = {
    all: {},
    read() {
      try {
        this.all = JSON.parse(localStorage.getItem(KEY)) ?? {};
      } catch {} // not allowed, or damaged: what the page has
      return this.all;
    },
    write(id, bet) {
      const { [id]: old, ...others } = this.read();
      this.all = bet ? { ...others, [id]: bet } : others;
      try {
        localStorage.setItem(KEY, JSON.stringify(this.all));
      } catch {}
    },
  };

  /** How far a drawn curve lies from the measured one on average, as a share of the axis. */
  function distance(drawn, measured, low, high) {
    const off = drawn.map((v, i) => Math.abs(v - measured[i]));
    return { share: off.reduce((total, v) => total + v, 0) / off.length / (high - low) };
  }

  class Bet extends Figure {
    static distance = distance;
    static store = store;

    build() {
      const { id, question, options } = this.data;
      this.label = options ? "Where the intervals lie" : "The curve that you expect";
      this.prepend(html("p", { class: "live-question" }, html("strong", {}, "Before you look. "), question));
      const kept = store.read()[id];
      this.shown = Boolean(kept);
      if (options) {
        this.choice("said", "Your bet:", options);
        this.set("said", kept?.said ?? null);
      } else this.points(kept?.said);
      [this.place, this.reveal, this.again] = this.buttons("Bet", [
        ["Place my bet", () => this.keep(options ? this.now.said : this.drawn)],
        ["Just show me", () => this.keep(null)],
        ["Bet again", () => this.forget()],
      ]);
      if (kept) this.keep(kept.said); // the result may be another one by now
    }

    /** A handle for every point of the curve. */
    points(said) {
      const { x, low, high, xname } = this.data;
      this.drawn = said?.length === x.length ? said : x.map(() => (low + high) / 2);
      this.dots = x.map((v, i) =>
        this.handle({
          label: `your value at ${xname} ${brief(v)}`,
          axis: "y",
          step: (high - low) / 50,
          colour: "live-c4",
          hint: i === 0,
          read: (point) => this.at.back(point.y),
          change: (value) => {
            this.drawn[i] = value;
            this.touched = true;
          },
        }),
      );
    }

    keep(said) {
      const { id, title, verdict, options, found, y, low, high } = this.data;
      const words = (value) => options?.find(([option]) => option === value)?.[1];
      this.shown = true;
      const bet = { title, said, page: location.pathname.split("/").pop() };
      if (said && options) Object.assign(bet, { bet: words(said), found: words(verdict) ?? null, options: options.length, right: verdict ? said === verdict : null });
      if (said && y) Object.assign(bet, { share: distance(said, y, low, high).share });
      store.write(id, bet);
      this.unveil?.();
      dispatchEvent(new Event("bnbook-bets"));
    }

    forget() {
      store.write(this.data.id);
      this.shown = this.touched = false;
      if (this.data.options) this.set("said", null);
      this.veil?.();
      dispatchEvent(new Event("bnbook-bets"));
    }

    /** Before the outputs of the cell, which are veiled. */
    takePlace() {
      const cell = this.closest(".cell_output");
      const own = this.parentElement;
      const picture = cell?.querySelector("img");
      const whole = picture?.closest("figure > *") ?? picture;
      const outputs = whole ? [whole] : [...(cell?.children ?? [])].filter((output) => output !== own);
      if (whole) {
        whole.before(this);
        if (!own.children.length) own.remove();
      } else cell?.prepend(own);
      const veiled = (whether) => {
        for (const { classList } of outputs) {
          for (const name of ["live-still", "live-veiled"]) classList.toggle(name, whether);
          classList.toggle("live-shown", !whether);
        }
      };
      this.veil = () => veiled(true);
      this.unveil = () => veiled(false);
      veiled(!this.shown);
    }

    draw(width) {
      const { options } = this.data;
      const pressed = this.contains(document.activeElement) ? document.activeElement : null;
      this.place.disabled = this.shown || !(options ? this.now.said : this.touched);
      this.reveal.disabled = this.shown;
      this.again.disabled = !this.shown;
      if (options) this.enable("said", !this.shown);
      const { height, parts } = options ? this.intervals(width) : this.curves(width);
      // Who works it by keys must not lose the place when the button that was pressed is greyed.
      if (pressed?.disabled) {
        (this.shown ? this.again : options ? this.controls.said.inputs[0] : this.dots[0].grip).focus();
      }
      return { height, parts, sentence: options ? this.verdict() : this.closeness() };
    }

    /** What the words mean, and when the bet is placed the intervals of the conditions. */
    intervals(width) {
      const { conditions = [], delta, unit } = this.data;
      const shown = this.shown ? conditions : [];
      const most = Math.max(3 * delta, ...shown.flatMap(({ low, high }) => [Math.abs(low), Math.abs(high)]));
      const [left, right, row] = [10, width - 10, 38];
      const at = scale(-1.05 * most, 1.05 * most, left, right);
      const bottom = 34 + Math.max(1, shown.length) * row;
      const parts = [rect("live-band", at(-delta), 24, at(delta) - at(-delta), bottom - 24)];
      const zones = { supported: [[delta, most]], little: [[-delta, delta]], reversed: [[-most, -delta]], depends: [[-most, -delta], [delta, most]] };
      for (const [from, to] of (!this.shown && zones[this.now.said]) || []) parts.push(rect("live-range live-c4", at(from), 24, at(to) - at(from), bottom - 24));
      if (this.now.said === "open" && !this.shown) parts.push(line("live-interval live-c4", at(-1.6 * delta), 58, at(1.9 * delta), 58));
      parts.push(line("live-zero", at(0), 24, at(0), bottom), line("live-axis", left, bottom, right, bottom));
      parts.push(text("live-tick", left, 14, "against the claim"), text("live-tick", right, 14, "for it", "end"));
      if (at(delta) - at(-delta) > 140) parts.push(text("live-tick", at(0), 14, "too little to matter", "middle"));
      shown.forEach(({ name, mean, low, high }, k) => {
        const y = 58 + k * row;
        parts.push(line("live-interval live-c1", at(low), y, at(high), y), circle("live-dot live-c1", at(mean), y, 6));
        const label = text("live-value", left, y - 12, name);
        if (7.1 * name.length > right - left) { // pixels: else it would leave a phone
          label.setAttribute("textLength", right - left);
          label.setAttribute("lengthAdjust", "spacingAndGlyphs");
        }
        parts.push(label);
      });
      const factor = unit.startsWith("times"); // on a logarithmic axis
      const ticks = [[-delta, factor ? "1/δ" : "−δ"], [0, factor ? "1" : "0"], [delta, "δ"]];
      const marks = at(delta) - at(0) > 16 ? ticks : [ticks[1]];
      const times = unit.startsWith("points") ? 100 : 1;
      const size = factor ? 1 : 10 ** Math.floor(Math.log10(times * most)); // a power of ten, or of one digit
      const shownEnd = size * Math.floor((times * most) / size);
      const end = shownEnd / times;
      if (this.shown && at(end) - at(marks.length > 1 ? delta : 0) > 36) {
        for (const side of [-1, 1]) marks.push([side * end, factor ? brief(10 ** (side * end)) : `${side < 0 ? "−" : "+"}${brief(shownEnd)}`]);
      }
      for (const [v, words] of marks) parts.push(text("live-tick", at(v), bottom + 18, words, "middle"));
      parts.push(text("live-tick", right, bottom + 36, unit, "end"));
      return { height: bottom + 42, parts };
    }

    curves(width) {
      const { x, y, low, high, xname, yname } = this.data;
      const [left, right, top, bottom] = [48, width - 26, 34, width < 480 ? 220 : 260];
      const ticks = Array.from({ length: 5 }, (_, i) => low + (i * (high - low)) / 4);
      const c = chart({
        left,
        right,
        top,
        bottom,
        x: { from: -0.2, to: x.length - 1, ticks: x.map((_, i) => i), show: (i) => brief(x[i]), name: xname },
        y: { from: low, to: high, ticks, name: yname },
      });
      this.at = c.y;
      const parts = [...c.parts, c.curve("live-c4 live-dashed", this.drawn.map((v, i) => [i, v]))];
      this.dots.forEach((dot, i) => {
        if (this.shown) dot.hide();
        else dot.place(c.x(i), c.y(this.drawn[i]), this.drawn[i], { min: low, max: high, text: brief(this.drawn[i]) });
      });
      if (this.shown) {
        const yours = store.all[this.data.id]?.said;
        if (!yours) parts.pop();
        else yours.forEach((v, i) => parts.push(circle("live-hollow live-c4", c.x(i), c.y(v), 4)));
        parts.push(c.curve("live-c1", y.map((v, i) => [i, clamp(v, low, high)])));
        y.forEach((v, i) => parts.push(circle("live-dot live-c1", c.x(i), c.y(clamp(v, low, high)), 5)));
      }
      return { height: bottom + 42, parts };
    }

    verdict() {
      const { options, verdict, found } = this.data;
      if (!this.shown) return "Pick what you expect of the runs, and place your bet. The shaded strip is what would be too little to matter.";
      const mine = store.all[this.data.id];
      const start = mine?.bet ? `You said: ${mine.bet}. ` : "";
      if (!verdict) return `${start}There is no verdict yet; the runs are not complete.`;
      const said = options.find(([value]) => value === verdict)[1];
      const right = !mine?.bet ? "" : mine.right ? "Right. " : "Not so. ";
      return `${start}${right}Measured: ${said}. ${found}`;
    }

    closeness() {
      if (!this.shown) return "Draw the curve that you expect: pull each point, or move it by the arrow keys. Then place your bet.";
      const mine = store.all[this.data.id];
      if (mine?.share == null) return "The line is what was measured.";
      return `Your curve lies ${show(100 * mine.share, 0)} % of the axis away from what was measured, on average.`;
    }
  }

  define("bet", Bet);
})();
