/* <live-depth>: how a gradient grows through layers with batch normalization, before training. Chapter 13. */

(() => {
  "use strict";
  const { Figure, define, line, circle, text, show, brief, chart } = Live;

  const [LEAST, MOST] = [4, 512]; // examples in a batch
  const LAYERS = 100;

  /** Equation 13.8: the growth of the squared gradient per layer, backward; without ReLU of a linear network. */
  function rate(m, relu) {
    if (!relu) return (m - 2) / (m - 3);
    const c = -1 / (m - 1);
    const angle = Math.PI - Math.acos(c);
    const cosine = (Math.sqrt(1 - c * c) + angle * c) / Math.PI;
    return (m - 2 + cosine + angle / Math.PI) / ((m - 3) * (1 - cosine));
  }

  /** The same, and what it makes of the squared gradient on its way from the last of so many layers to the first. */
  function growth(m, relu, layers) {
    const r = rate(m, relu);
    return { rate: r, whole: r ** (layers - 1) };
  }

  const LIMIT = { relu: Math.PI / (Math.PI - 1), linear: 1 };

  class Depth extends Figure {
    static growth = growth;
    label = "Growth of the squared gradient per layer over the batch size, and over all layers";

    build() {
      this.m = 32;
      this.choice("kind", "Layers:", [
        ["relu", "ReLU"],
        ["linear", "linear"],
      ]);
      this.slider("layers", "layers L", { min: 2, max: LAYERS, value: 40, text: String });
      this.batch = this.handle({
        label: "batch size m, in powers of two",
        axis: "x",
        step: 0.25,
        colour: "live-with",
        hint: true,
        read: ({ x }) => Math.log2(this.atM.back(x)),
        change: (power) => (this.m = Math.round(2 ** power)),
      });
    }

    draw(width) {
      const narrow = width < 560;
      const { kind, layers } = this.now;
      const relu = kind === "relu";
      const { rate: r, whole } = growth(this.m, relu, layers);
      const half = narrow ? width : width / 2 - 14;
      const high = narrow ? 150 : 200;
      const left = { left: 34, right: half - 12, top: 34, bottom: 34 + high };
      const right = narrow
        ? { left: 46, right: width - 12, top: high + 122, bottom: 2 * high + 122 }
        : { left: half + 74, right: width - 14, top: 34, bottom: 34 + high };
      const parts = [...this.rates(left, r, relu), ...this.slope(right, r, narrow)];
      const said = `${this.m}, growth ${show(r)} per layer`;
      this.batch.place(this.atM(this.m), this.atRate(Math.min(r, 2.4)), Math.log2(this.m), { min: 2, max: 9, text: said });
      return { height: right.bottom + 42, parts, sentence: this.sentence(r, whole, layers, relu) };
    }

    /** The growth per layer over the batch size. */
    rates(box, r, relu) {
      const c = chart({
        ...box,
        x: { from: LEAST, to: MOST, log: true, ticks: [4, 8, 16, 32, 64, 128, 256, 512], every: box.right < 330 ? 2 : 1, name: "batch size m" },
        y: { from: 1, to: 2.4, ticks: [1, 1.5, 2], name: "growth per layer, squared" },
      });
      [this.atM, this.atRate] = [c.x, c.y];
      const sizes = Array.from({ length: 120 }, (_, i) => LEAST * (MOST / LEAST) ** (i / 119));
      const curve = (of) => sizes.map((m) => [m, rate(m, of)]).filter(([, y]) => y <= 2.4);
      const end = LIMIT[relu ? "relu" : "linear"];
      const parts = [...c.parts];
      if (relu) {
        parts.push(line("live-mark-line live-fine", box.left, c.y(end), box.right, c.y(end)));
        parts.push(text("live-value", box.right - 2, c.y(end) + 19, "π/(π−1)", "end"));
      }
      for (const of of [true, false]) {
        parts.push(c.curve(of === relu ? "live-with" : "live-c5 live-faint", curve(of)));
        parts.push(text("live-tick", box.right - 2, c.y(rate(MOST, of)) + (of ? -9 : -16), of ? "ReLU" : "linear", "end"));
        for (const [m, value] of this.data[of ? "relu" : "linear"] ?? []) parts.push(circle(`live-hollow ${of === relu ? "live-with" : "live-c5"}`, c.x(m), c.y(value), 3.5));
      }
      parts.push(line("live-mark-line", c.x(this.m), c.y(Math.min(r, 2.4)), c.x(this.m), box.bottom));
      return parts;
    }

    /** The squared gradient at every layer, in times of that at the last. */
    slope(box, r, narrow) {
      const { layers } = this.now;
      const least = rate(LEAST, true) ** LAYERS;
      const top = Math.max(6, Math.ceil(Math.log10(Math.min(r ** layers, least)) / 3) * 3);
      const every = Math.max(1, Math.round(top / 6));
      const ticks = Array.from({ length: Math.floor(top / every) + 1 }, (_, i) => 10 ** (i * every));
      const some = [1, ...[20, 40, 60, 80, 100].filter((v) => v <= layers)];
      const c = chart({
        ...box,
        x: { from: 1, to: Math.max(layers, 2), ticks: layers < 20 ? [1, layers] : some, show: String, name: "layer" },
        y: { from: 1, to: 10 ** top, log: true, ticks, name: "squared gradient, last layer = 1" },
      });
      const level = Array.from({ length: layers }, (_, i) => [i + 1, r ** (layers - i - 1)]);
      const parts = [...c.parts, c.curve("live-without", level.map(([x]) => [x, 1])), c.curve("live-with", level)];
      if (layers <= 40) for (const [x, y] of level) parts.push(circle("live-fill live-with", c.x(x), c.y(y), 2.5));
      const [x, y] = [c.x(1), c.y(level[0][1])];
      parts.push(circle("live-dot live-with", x, y, 6), text("live-value", x + 12, y + 5, `× ${brief(level[0][1])}`));
      parts.push(text("live-value", box.left + 12, c.y(1) - 8, "without BN"));
      parts.push(text("live-value", (box.left + box.right) / 2 + (narrow ? 14 : 8), c.y(r ** ((layers - 1) / 2)) - 8, "with BN"));
      return parts;
    }

    sentence(r, whole, layers, relu) {
      const start = `In batches of ${this.m} the squared gradient grows by ${show(r, 3)} at every ${relu ? "ReLU" : "linear"} layer: over ${layers} layers to ${brief(whole)} times, the gradient itself to ${brief(Math.sqrt(whole))} times.`;
      if (!relu) return `${start} Without an activation a large batch ends the growth: the rate falls to 1.`;
      if (this.m <= 5) return `${start} So small a batch is worse by far; at m = 3 the formula has no value.`;
      return `${start} No batch is large enough to end it: the rate falls to ${show(LIMIT.relu, 3)}, which is ${brief(LIMIT.relu ** (layers - 1))} times over these layers. Without batch normalization, from He's weights, the gradient stays level.`;
    }
  }

  define("depth", Depth);
})();
