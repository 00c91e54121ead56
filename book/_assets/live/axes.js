/* <live-axes>: which values share one mean. Point at one, and all light up that are averaged with it. Chapter 2. */

(() => {
  "use strict";
  const { Figure, define, svg, rect, text, clamp } = Live;

  const CHANNELS = 6;
  const PARTS = [1, 2, 3, 6]; // what six channels can be divided into
  const IMAGE = [3, 2]; // height and width differ: nobody can swap them unseen

  /** Which statistic a value belongs to, along the examples and along the channels. */
  const SHARED = {
    batch: (n, c) => [0, c],
    layer: (n) => [n, 0],
    instance: (n, c) => [n, c],
    group: (n, c, size) => [n, Math.floor(c / size)],
  };

  /** Normalize x, the values of an (N, C, H, W) array in a row: over the batch, a layer, an instance or a group. */
  function normalize(x, [examples, channels, height, width], kind, groups, eps) {
    const positions = height * width;
    const labels = x.map((_, i) => {
      const [n, c] = [Math.floor(i / (channels * positions)), Math.floor(i / positions) % channels];
      const [row, column] = SHARED[kind](n, c, channels / groups);
      return row * channels + column;
    });
    const over = (values) => {
      const [totals, counts] = [{}, {}];
      labels.forEach((label, i) => {
        totals[label] = (totals[label] ?? 0) + values[i];
        counts[label] = (counts[label] ?? 0) + 1;
      });
      return labels.map((label) => [totals[label] / counts[label], counts[label]]);
    };
    const means = over(x);
    const centered = x.map((v, i) => v - means[i][0]);
    const variances = over(centered.map((v) => v * v));
    return {
      labels,
      m: means[0][1],
      mean: means.map(([mean]) => mean),
      variance: variances.map(([variance]) => variance),
      xHat: centered.map((v, i) => v / Math.sqrt(variances[i][0] + eps)),
    };
  }

  class Axes extends Figure {
    static normalize = normalize;
    label = "A batch as a grid: a row an example, a column a channel; all values that share one mean are lit";

    build() {
      this.at = { n: 1, c: 2, h: 1, w: 0 };
      this.choice("kind", "Normalization:", ["batch", "layer", "instance", "group"].map((kind) => [kind, kind]));
      this.choice("input", "Input:", [
        ["images", "images (N, C, H, W)"],
        ["table", "a table (N, C)"],
      ]);
      this.slider("examples", "examples N", { min: 1, max: 6, value: 4, text: String });
      this.slider("groups", "groups G", { min: 0, max: 3, value: 1, map: (k) => PARTS[k], text: String });
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
        const { height, width } = this.shape();
        const [down, across] = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key] ??
          { PageDown: [height, 0], PageUp: [-height, 0], Home: [0, -1e3], End: [0, 1e3] }[event.key] ?? [0, 0]; // prettier-ignore
        if (!down && !across) return;
        event.preventDefault();
        this.go(this.at.n * height + this.at.h + down, this.at.c * width + this.at.w + across);
      });
    }

    shape() {
      const [height, width] = this.now.input === "table" ? [1, 1] : IMAGE;
      return { examples: this.now.examples, height, width };
    }

    /** To a row and a column of cells, counted over all tiles. */
    go(row, column) {
      const { examples, height, width } = this.shape();
      const [r, k] = [clamp(row, 0, examples * height - 1), clamp(column, 0, CHANNELS * width - 1)];
      const at = { n: Math.floor(r / height), h: r % height, c: Math.floor(k / width), w: k % width };
      if (Object.keys(at).every((axis) => at[axis] === this.at[axis])) return;
      this.change(() => (this.at = at));
    }

    pick({ x, y }) {
      const { height, width } = this.shape();
      const { left, top, cell, gap } = this.grid;
      const index = (pixel, size) => {
        const tile = Math.floor((pixel + gap / 2) / (size * cell + gap));
        return tile * size + clamp(Math.floor((pixel - tile * (size * cell + gap)) / cell), 0, size - 1);
      };
      this.go(index(y - top, height), index(x - left, width));
    }

    draw(space) {
      const { kind, groups } = this.now;
      const { examples, height, width } = this.shape();
      this.enable("groups", kind === "group");
      const table = height * width === 1;
      const gaps = table ? 0.15 : 0.7;
      const [left, top, room] = [44, 26, 290];
      const most = Math.min(table ? 34 : 22, room / (examples * (height + gaps)), (space - left - 4) / (CHANNELS * (width + gaps)));
      const cell = Math.floor(most);
      const gap = Math.round(gaps * cell);
      this.grid = { left, top, cell, gap };
      const { n, c, h, w } = (this.at = { ...this.at, n: Math.min(this.at.n, examples - 1), ...(table && { h: 0, w: 0 }) });
      const x = (channel, column) => left + channel * (width * cell + gap) + column * cell;
      const y = (example, row) => top + example * (height * cell + gap) + row * cell;
      const positions = height * width;
      const { labels, m } = normalize(Array(examples * CHANNELS * positions).fill(0), [examples, CHANNELS, height, width], kind, groups, 1);
      const mine = labels[(n * CHANNELS + c) * positions];
      const parts = [];
      labels.forEach((label, i) => {
        const [e, k] = [Math.floor(i / (CHANNELS * positions)), Math.floor(i / positions) % CHANNELS];
        const [row, column] = SHARED[kind](e, k, CHANNELS / groups);
        const shade = label === mine ? "live-fill live-c1" : `live-cell${(row + column) % 2 ? " live-other" : ""}`;
        parts.push(rect(shade, x(k, i % width), y(e, Math.floor(i / width) % height), cell - 1, cell - 1, 2));
      });
      for (let k = 0; k < CHANNELS; k++) parts.push(text("live-note", x(k, width / 2), top - 8, k ? String(k) : "c = 0", "middle"));
      for (let e = 0; e < examples; e++) parts.push(text("live-note", left - 8, y(e, height / 2) + 4, e ? String(e) : "n = 0", "end"));
      for (const [name, value] of Object.entries({ x: left, y: top, width: x(CHANNELS, 0) - left - gap, height: y(examples, 0) - top - gap })) this.area.setAttribute(name, value);
      for (const [name, value] of Object.entries({ x: x(c, w) - 2, y: y(n, h) - 2, width: cell + 3, height: cell + 3 })) this.frame.setAttribute(name, value);
      const place = table ? "" : `, row ${h}, column ${w}`;
      this.cursor.setAttribute("aria-label", `The value of example ${n}, channel ${c}${place}. Move with the arrow keys.`);
      const facts = this.facts(kind, groups, examples, table, m);
      const beside = space - (x(CHANNELS, 0) + 24) > 230;
      facts.forEach((words, k) => {
        const at = beside ? [x(CHANNELS, 0) + 24, top + 18 + 26 * k] : [4, top + room + 22 + 22 * k];
        parts.push(text(k ? "live-code" : "live-value", ...at, words));
      });
      return { height: top + room + (beside ? 8 : 78), parts, sentence: this.sentence(kind, groups, examples, table, m) };
    }

    /** m, the line of NumPy and the shape of the statistics. */
    facts(kind, groups, examples, table, m) {
      const axes = { batch: table ? "0" : "(0, 2, 3)", layer: table ? "1" : "(1, 2, 3)", instance: table ? "()" : "(2, 3)" }[kind];
      const ones = table ? "" : ", 1, 1";
      const shape = { batch: `(1, ${CHANNELS}${ones})`, layer: `(${examples}, 1${ones})`, instance: `(${examples}, ${CHANNELS}${ones})`, group: `(${examples}, ${groups}, 1${ones})` }[kind];
      const code = kind === "group" ? `split.mean(axis=${table ? "2" : "(2, 3, 4)"})` : `x.mean(axis=${axes})`;
      return [`m = ${m} ${m === 1 ? "value" : "values"}`, code, `statistics: ${shape}`];
    }

    sentence(kind, groups, examples, table, m) {
      const { n, c } = this.at;
      const all = table ? "examples" : "images";
      const one = table ? "example" : "image";
      const size = table ? "" : "·H·W";
      const what = {
        batch: `Batch normalization averages channel ${c} over all ${examples} ${all}: m = N${size} = ${m}. What else is in the batch changes this value; there is one mean a channel.`,
        layer: `Layer normalization averages all of ${one} ${n}: m = C${size} = ${m}. The other ${all} do not matter; there is one mean for each ${one}.`,
        instance: `Instance normalization averages channel ${c} of ${one} ${n} alone: m = ${table ? "1" : "H·W"} = ${m}. The other ${all} and channels do not matter.`,
        group: `Group normalization averages ${CHANNELS / groups} of ${CHANNELS} channels of ${one} ${n}: m = (C/G)${size} = ${m}. The other ${all} do not matter.`,
      }[kind];
      if (m === 1) return `${what.split(".")[0].replace("1 = 1", "1")}. One value is its own mean: x̂ = 0, and the input is gone.`;
      if (kind === "group" && groups === 1) return `${what} One group of all channels has the statistics of layer normalization.`;
      if (kind === "group" && groups === CHANNELS) return `${what} A group for each channel is instance normalization.`;
      return what;
    }
  }

  define("axes", Axes);
})();
