/* <live-relatives>: which values share one mean and variance, and which outputs move when some inputs do. Chapter 22. */

(() => {
  "use strict";
  const { Figure, define, svg, rect, circle, text, show, clamp, normal } = Live;

  const SHAPE = [3, 4, 2, 2]; // images, channels, height, width
  const GROUPS = 2;
  const EPS = 1e-12; // as good as zero
  const FACTORS = [-1, 0.25, 0.5, 1, 2, 4];
  const KINDS = ["batch", "layer", "RMS", "group", "instance", "position"];
  const WHAT = { value: "this value", map: "its channel of its image", image: "its image", channel: "its channel of all images", position: "its position, all channels", all: "everything" };

  /** Example, channel and position of every value of an (N, C, H, W) array in a row. */
  const places = ([examples, channels, height, width]) =>
    Array.from({ length: examples * channels * height * width }, (_, i) => {
      const map = Math.floor(i / (height * width));
      return { n: Math.floor(map / channels), c: map % channels, p: i % (height * width) };
    });

  /** The statistic that a value belongs to. */
  const SET = {
    batch: ({ c }) => `${c}`,
    layer: ({ n }) => `${n}`,
    RMS: ({ n }) => `${n}`,
    group: ({ n, c }, size) => `${n} ${Math.floor(c / size)}`,
    instance: ({ n, c }) => `${n} ${c}`,
    position: ({ n, p }) => `${n} ${p}`,
  };

  /** Equation 22.1: x in a row, normalized over the values that share a statistic. */
  function normalize(x, shape, kind, groups, eps) {
    const sets = places(shape).map((place) => SET[kind](place, shape[1] / groups));
    const mean = (values) => {
      const [totals, counts] = [{}, {}];
      sets.forEach((set, i) => {
        totals[set] = (totals[set] ?? 0) + values[i];
        counts[set] = (counts[set] ?? 0) + 1;
      });
      return sets.map((set) => totals[set] / counts[set]);
    };
    const means = kind === "RMS" ? x.map(() => 0) : mean(x);
    const centered = x.map((v, i) => v - means[i]);
    const squares = mean(centered.map((v) => v * v));
    return { sets, xHat: centered.map((v, i) => v / Math.sqrt(squares[i] + eps)) };
  }

  class Relatives extends Figure {
    static normalize = normalize;
    label = "A batch before and after a normalization; outputs that move when inputs are changed are marked";

    build() {
      this.at = { row: 2, column: 3 }; // of the cells, over all tiles
      const random = normal(5);
      this.x = places(SHAPE).map(({ c }) => (c - 1) * 0.8 + random());
      this.choice("kind", "Normalization:", KINDS.map((kind) => [kind, kind === "position" ? "layer, at each position" : kind]));
      this.choice("what", "Change:", Object.entries(WHAT));
      this.set("what", "map");
      this.slider("factor", "times", { min: 0, max: FACTORS.length - 1, value: 4, map: (k) => FACTORS[k], text: show });
      this.slider("shift", "plus", { min: -3, max: 3, value: 0, text: show });
      this.cursor = svg("g", { class: "live-handle live-ink", role: "application", tabindex: 0 });
      this.area = rect("live-reach", 0, 0, 1, 1);
      this.frame = rect("live-frame", 0, 0, 1, 1, 2);
      this.cursor.append(this.area, this.frame);
      this.front.append(this.cursor);
      for (const kind of ["pointerdown", "pointermove"]) {
        this.cursor.addEventListener(kind, (event) => {
          if (kind === "pointerdown" || event.pointerType === "mouse") this.pick(this.point(event));
        });
      }
      this.cursor.addEventListener("keydown", (event) => {
        const [down, across] = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key] ?? [0, 0]; // prettier-ignore
        if (!down && !across) return;
        event.preventDefault();
        this.go(this.at.row + down, this.at.column + across);
      });
    }

    go(row, column) {
      const at = { row: clamp(row, 0, SHAPE[0] * SHAPE[2] - 1), column: clamp(column, 0, SHAPE[1] * SHAPE[3] - 1) };
      if (at.row !== this.at.row || at.column !== this.at.column) this.change(() => (this.at = at));
    }

    pick({ x, y }) {
      const { left, top, cell, gap } = this.grid;
      const index = (pixel, size) => {
        const tile = Math.floor((pixel + gap / 2) / (size * cell + gap));
        return tile * size + clamp(Math.floor((pixel - tile * (size * cell + gap)) / cell), 0, size - 1);
      };
      this.go(index(y - top, SHAPE[2]), index(x - left, SHAPE[3]));
    }

    /** Whether a value is among those that are changed. */
    chosen({ n, c, p }) {
      const me = this.me;
      return { value: n === me.n && c === me.c && p === me.p, map: n === me.n && c === me.c, image: n === me.n, channel: c === me.c, position: n === me.n && p === me.p, all: true }[this.now.what]; // prettier-ignore
    }

    draw(space) {
      const { kind, factor, shift, what } = this.now;
      const [examples, channels, height, width] = SHAPE;
      const { row, column } = this.at;
      this.me = { n: Math.floor(row / height), c: Math.floor(column / width), p: (row % height) * width + (column % width) };
      const where = places(SHAPE);
      const changed = this.x.map((v, i) => (this.chosen(where[i]) ? v * factor + shift : v));
      const before = normalize(this.x, SHAPE, kind, GROUPS, EPS);
      const after = normalize(changed, SHAPE, kind, GROUPS, EPS);
      const moved = after.xHat.map((v, i) => Math.abs(v - before.xHat[i]) > 1e-6);
      const mine = where.findIndex((place) => place.n === this.me.n && place.c === this.me.c && place.p === this.me.p);

      const [left, top] = [44, 52];
      const cell = Math.floor(Math.min(26, (space - left - 24) / (2 * channels * (width + 0.5))));
      const gap = Math.round(cell / 2);
      this.grid = { left, top, cell, gap };
      const wide = channels * (width * cell + gap) - gap;
      const second = left + wide + 20;
      const parts = [];
      const x = (start, { c, p }) => start + c * (width * cell + gap) + (p % width) * cell;
      const y = ({ n, p }) => top + n * (height * cell + gap) + Math.floor(p / width) * cell;
      const grid = (start, values, scale, marked) =>
        values.forEach((v, i) => {
          const box = rect(`live-fill live-c${v < 0 ? 2 : 1}`, x(start, where[i]), y(where[i]), cell - 1, cell - 1, 2);
          box.setAttribute("opacity", clamp(Math.abs(v) / scale, 0.06, 1).toFixed(2));
          parts.push(box);
          if (marked(i)) parts.push(circle("live-dot live-ink", x(start, where[i]) + (cell - 1) / 2, y(where[i]) + (cell - 1) / 2, Math.max(2.5, cell / 6)));
        });
      grid(left, changed, 4, (i) => changed[i] !== this.x[i]);
      grid(second, after.xHat, 2.5, (i) => moved[i]);
      after.sets.forEach((set, i) => {
        if (set === after.sets[mine]) parts.push(rect("live-edge live-strong live-c3", x(left, where[i]), y(where[i]), cell - 1, cell - 1, 2));
      });
      for (const [start, words] of [[left, "input"], [second, "output"]]) {
        parts.push(text("live-value", start, 16, words));
        for (let c = 0; c < channels; c++) parts.push(text("live-note", start + c * (width * cell + gap) + (width * cell) / 2, top - 10, start === left && !c ? "c = 0" : String(c), "middle"));
      }
      for (let n = 0; n < examples; n++) parts.push(text("live-note", left - 8, y({ n, p: 0 }) + cell + 4, n ? String(n) : "n = 0", "end"));
      const tall = examples * (height * cell + gap) - gap;
      for (const [name, value] of Object.entries({ x: left, y: top, width: wide, height: tall })) this.area.setAttribute(name, value);
      for (const [name, value] of Object.entries({ x: x(left, this.me) - 2, y: y(this.me) - 2, width: cell + 3, height: cell + 3 })) this.frame.setAttribute(name, value);
      this.cursor.setAttribute("aria-label", `The value of image ${this.me.n}, channel ${this.me.c}, row ${row % height}, column ${column % width}. Move with the arrow keys.`);
      return { height: top + tall + 10, parts, sentence: this.sentence(kind, what, factor, shift, after.sets, mine, moved, where) };
    }

    sentence(kind, what, factor, shift, sets, mine, moved, where) {
      const { n, c } = this.me;
      const m = sets.filter((set) => set === sets[mine]).length;
      const share = `${{ position: "Layer normalization at each position", RMS: "RMS normalization" }[kind] ?? `${kind[0].toUpperCase()}${kind.slice(1)} normalization`}: the ${m} outlined values share one ${kind === "RMS" ? "mean square" : "mean and one variance"}.`;
      const name = { value: "One value", map: `Channel ${c} of image ${n}`, image: `Image ${n}`, channel: `Channel ${c} of all images`, position: `One position of image ${n}`, all: "Everything" }[what];
      const change = `${name} times ${show(factor)}${shift ? ` ${shift < 0 ? "minus" : "plus"} ${Math.abs(shift)}` : ""}`;
      if (factor === 1 && !shift) return `${share} Nothing is changed.`;
      const count = moved.filter(Boolean).length;
      if (!count) return `${share} ${change}: no output moves.`;
      const others = moved.filter((yes, i) => yes && where[i].n !== n).length;
      const of = what === "all" || what === "channel" ? "" : `, ${others || "none"} of them in other images`;
      return `${share} ${change}: ${count} of ${moved.length} outputs move${of}.`;
    }
  }

  define("relatives", Relatives);
})();
