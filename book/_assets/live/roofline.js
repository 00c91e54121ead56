/* <live-roofline>: what batch normalization with a ReLU can reach on a card. Chapter 25.

Its data, { fused, separate, flops }: maps read or written by the two ways, and by way the operations on each value. */

(() => {
  "use strict";
  const { Figure, define, line, rect, circle, text, show, brief, chart } = Live;

  const CARDS = [ // bytes and float32 flops a second, from the data sheets
    ["A100", 2.039, 19.5],
    ["H100", 3.35, 67],
    ["H200", 4.8, 67],
  ];
  const X = { low: 0.1, high: 3000 };
  const Y = { low: 0.001, high: 300 }; // 10¹² a second
  const CONVOLUTION = [2, 2 * 9 * 256]; // 3×3 with 256 channels: maps, and operations on each output
  const LAUNCHES = { fused: 6, separate: 4 };
  const LAUNCH = 5e-6; // seconds, supposed as in chapter 10

  /** The least time: max(bytes/bandwidth, flops/peak). */
  function roofline(bandwidth, peak, values, size, maps, flops) {
    const bytes = values * size * maps;
    const work = values * flops;
    const memory = bytes / bandwidth;
    const arithmetic = work / peak;
    const seconds = Math.max(memory, arithmetic);
    return { bytes, memory, arithmetic, seconds, intensity: work / bytes, flops: work / seconds };
  }

  const units = (value, steps) => {
    const [factor, name] = steps.find(([f]) => value >= f) ?? steps.at(-1);
    return `${Number((value / factor).toPrecision(3))} ${name}`;
  };
  const bytesOf = (b) => units(b, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "bytes"]]);
  const timeOf = (s) => units(s, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]]);
  const valuesOf = (v) => (v < 1e6 ? `${show(v / 1e3, 0)} thousand` : `${show(v / 1e6, 0)} million`);
  const powerOf = (v) => `2${[...String(Math.round(Math.log2(v)))].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("")}`;
  const three = (value) => Number(value.toPrecision(3));

  class Roofline extends Figure {
    static roofline = roofline;
    label = "The most that a card can compute a second, against the operations on a byte, and batch normalization under it";

    build() {
      const log = (value) => Math.round(1000 * Math.log10(value));
      this.slider("bandwidth", "bandwidth, TB/s", { min: -2000, max: 1100, value: log(3.35), map: (p) => three(10 ** (p / 1000)), text: String });
      this.slider("peak", "peak, Tflop/s", { min: -1000, max: 2300, value: log(67), map: (p) => three(10 ** (p / 1000)), text: String });
      this.buttons(
        "Cards",
        CARDS.map(([name, bandwidth, peak]) => [
          name,
          () => {
            this.set("bandwidth", log(bandwidth));
            this.set("peak", log(peak));
          },
        ]),
      );
      this.slider("values", "values", { min: 10, max: 28, value: 26, map: (p) => 2 ** p, text: valuesOf });
      this.choice("size", "Numbers:", [
        ["2", "16 bits"],
        ["4", "32 bits"],
      ]);
      this.choice("way", "Operations:", [
        ["fused", "fused"],
        ["separate", "one after the other"],
      ]);
    }

    draw(width) {
      const narrow = width < 480;
      const { bandwidth, peak, values, size, way } = this.now;
      const of = (w) => roofline(1e12 * bandwidth, 1e12 * peak, values, Number(size), this.data[w], this.data.flops[w]);
      const found = of(way);
      const ridge = peak / bandwidth;
      const [left, right, top, bottom] = [44, width - 22, 34, narrow ? 220 : 270];
      const c = chart({
        left,
        right,
        top,
        bottom,
        x: { from: X.low, to: X.high, log: true, ticks: [0.1, 1, 10, 100, 1000], name: "operations on each byte" },
        y: { from: Y.low, to: Y.high, log: true, ticks: [0.001, 0.01, 0.1, 1, 10, 100], name: "10¹² operations a second" },
      });
      const inside = (v, { low, high }) => Math.min(high, Math.max(low, v));
      const roof = Array.from({ length: 101 }, (_, i) => X.low * (X.high / X.low) ** (i / 100)).map((x) => [x, inside(Math.min(peak, bandwidth * x), Y)]);
      const parts = [...c.parts, c.curve("live-ink", roof)];
      if (ridge > X.low && ridge < X.high) {
        parts.push(line("live-mark-line live-fine", c.x(ridge), c.y(inside(peak, Y)), c.x(ridge), bottom));
        const late = c.x(ridge) > right - 50;
        parts.push(text("live-tick", c.x(ridge) + (late ? -6 : 6), bottom - 8, "ridge", late ? "end" : "start"));
      }
      const conv = roofline(1e12 * bandwidth, 1e12 * peak, values, Number(size), ...CONVOLUTION);
      const [convX, convY] = [c.x(conv.intensity), c.y(inside(conv.flops / 1e12, Y))];
      parts.push(rect("live-dot live-c5", convX - 5, convY - 5, 10, 10, 0), text("live-tick", right, convY + 22, "convolution", "end"));
      for (const w of ["separate", "fused"]) {
        const { intensity, flops } = of(w);
        const [x, y] = [c.x(intensity), c.y(inside(flops / 1e12, Y))];
        const colour = w === "fused" ? "live-c1" : "live-c2";
        if (w === way) parts.push(line("live-mark-line", x, y, x, bottom));
        parts.push(circle(`live-dot ${colour}`, x, y, w === way ? 8 : 5));
      }
      const at = c.x(found.intensity);
      parts.push(text("live-value", at + 14, c.y(inside(found.flops / 1e12, Y)) + 20, way === "fused" ? "fused" : "one after the other"));
      return { height: bottom + 44, parts, sentence: this.sentence(found, of("separate").seconds / of("fused").seconds, ridge) };
    }

    sentence(found, gain, ridge) {
      const { way, bandwidth, peak, values, size } = this.now;
      const each = Number(size) * this.data[way];
      const launching = LAUNCHES[way] * LAUNCH;
      const bound = found.memory >= found.arithmetic;
      const start = `Forward and backward move ${bytesOf(found.bytes)}, ${this.data[way]} maps of ${powerOf(values)} values: at least ${timeOf(found.memory)} at ${bandwidth} TB/s. The arithmetic would take ${timeOf(found.arithmetic)} at ${peak} Tflop/s.`;
      const small = found.seconds < launching ? ` ${LAUNCHES[way]} launches at 5 µs take ${timeOf(launching)}, which is longer: this map is too small for its bytes to matter.` : "";
      if (!bound) return `${start} On a card whose ridge is at ${brief(ridge)} operations a byte, the arithmetic is the limit.${small}`;
      return `${start} The memory is the limit: the ridge is at ${brief(ridge)} operations a byte, and here there are ${this.data.flops[way]} on ${each} bytes of each value, ${brief(found.intensity)} a byte. Fusing makes it ${show(gain, 3)} times as fast at best.${small}`;
    }
  }

  define("roofline", Roofline);
})();
