/* <live-backward>: the backward pass as what a fitted line leaves over. Pull the gradient of an output. Chapter 4. */

(() => {
  "use strict";
  const { Figure, define, line, rect, text, show, clamp, scale, normal } = Live;

  const BATCH = [2, 4, 5, 6, 8]; // the batch of the book
  const TOP = 2;

  const sum = (values) => values.reduce((total, v) => total + v, 0);

  /** Chapter 4: g without its mean and without its part along x̂, times γ/√(σ²+ε). For ε = 0 mean and part are the line
  that least squares fit to the points (x̂, g). In evaluation the statistics are constants, and only the factor stays. */
  function batchNormBackward(x, g, gamma, eps, training = true) {
    const m = x.length;
    const mean = sum(x) / m;
    const variance = sum(x.map((v) => (v - mean) ** 2)) / m;
    const factor = gamma / Math.sqrt(variance + eps);
    const xHat = x.map((v) => (v - mean) / Math.sqrt(variance + eps));
    const [gradWeight, gradBias] = [sum(g.map((v, i) => v * xHat[i])), sum(g)];
    const [level, slope] = training ? [gradBias / m, gradWeight / m] : [0, 0];
    const left = g.map((v, i) => v - level - slope * xHat[i]);
    return { xHat, level, slope, left, factor, gradX: left.map((v) => factor * v), gradWeight, gradBias };
  }

  class Backward extends Figure {
    static batchNormBackward = batchNormBackward;
    label = "The upstream gradients of a batch, the line fitted to them, and the gradients of the inputs";

    build() {
      this.x = BATCH;
      this.g = [1, 0, 0, 0, 0];
      this.pulled = 0;
      this.dots = this.x.map((x, i) =>
        this.handle({
          label: `upstream gradient of example ${i + 1}, where x is ${x}`,
          axis: "y",
          step: 0.05,
          colour: "live-ink",
          mark: String(i + 1),
          hint: i === 0,
          read: ({ y }) => this.up.back(y),
          change: (v) => {
            this.g[i] = v;
            this.pulled = i;
          },
        }),
      );
      this.choice("mode", "Mode:", [
        ["training", "training"],
        ["evaluation", "evaluation"],
      ]);
      this.slider("gamma", "scale γ", { min: -3, max: 3, step: 0.1, value: 1 });
      const random = normal(3);
      this.buttons("Gradients to try", [
        ["only one", () => this.load([1, 0, 0, 0, 0])],
        ["all the same", () => this.load([1, 1, 1, 1, 1])],
        ["along x̂", () => this.load([-1.5, -0.5, 0, 0.5, 1.5])],
        ["random", () => this.load(this.x.map(() => clamp(Math.round(20 * random()) / 20, -TOP, TOP)))],
      ]);
    }

    load(g) {
      this.pulled = g.findIndex((v) => v !== 0);
      this.glide([...this.g], g, (now) => (this.g = now));
    }

    draw(width) {
      const narrow = width < 480;
      const [left, right, top, tall, low] = [narrow ? 36 : 104, width - (narrow ? 12 : 20), 34, narrow ? 180 : 190, 110];
      const training = this.now.mode === "training";
      const pass = batchNormBackward(this.x, this.g, this.now.gamma, 0, training);
      const { xHat, level, slope, gradX } = pass;
      const at = scale(-1.9, 1.9, left, right);
      const up = (this.up = scale(-TOP, TOP, top + tall, top));
      const floor = top + tall + 50;
      const most = 1.25 * Math.max(...gradX.map(Math.abs));
      const reach = [0.3, 0.6, 1, 2, 4].find((r) => r >= most) ?? most;
      const down = scale(-reach, reach, floor + low, floor);
      const parts = [];
      const levels = (y, values) => {
        for (const v of values) {
          parts.push(line(v ? "live-grid" : "live-zero", left, y(v), right, y(v)), text("live-tick", left - 8, y(v) + 4, show(v), "end"));
        }
      };
      levels(up, [-2, -1, 0, 1, 2]);
      levels(down, [-reach, 0, reach]);
      if (narrow) {
        parts.push(text("live-note", 2, floor - 12, "at the inputs: ∂L/∂x"));
      } else {
        parts.push(text("live-name", 2, up(0) - 10, "g"), text("live-note", 2, up(0) + 6, "at the"), text("live-note", 2, up(0) + 21, "outputs"));
        parts.push(text("live-name", 2, down(0) - 10, "∂L/∂x"), text("live-note", 2, down(0) + 6, "at the"), text("live-note", 2, down(0) + 21, "inputs"));
      }
      this.x.forEach((x, i) => {
        parts.push(line("live-grid", at(xHat[i]), top, at(xHat[i]), floor + low));
        parts.push(text("live-tick", at(xHat[i]), floor + low + 20, narrow ? show(x) : `x = ${show(x)}`, "middle"));
        parts.push(text("live-note", at(xHat[i]), floor + low + 36, narrow ? show(xHat[i]) : `x̂ = ${show(xHat[i])}`, "middle"));
      });
      if (narrow) parts.push(text("live-note", 2, floor + low + 20, "x"), text("live-note", 2, floor + low + 36, "x̂"));
      parts.push(...(training ? this.fit(at, up, level, slope, right, narrow) : []));
      xHat.forEach((t, i) => {
        parts.push(line("live-stick live-c1", at(t), up(level + slope * t), at(t), up(this.g[i])));
        const [zero, end] = [down(0), down(gradX[i])];
        parts.push(rect("live-fill live-c1", at(t) - 11, Math.min(zero, end), 22, Math.max(0.01, Math.abs(end - zero)), 2));
        parts.push(text("live-value", at(t), end + (gradX[i] < 0 ? 16 : -7), show(gradX[i], 3), "middle"));
      });
      this.dots.forEach((dot, i) => {
        const spoken = `${show(this.g[i])}; its input gets ${show(gradX[i], 3)}`;
        dot.place(at(xHat[i]), up(this.g[i]), this.g[i], { min: -TOP, max: TOP, text: spoken });
      });
      return { height: floor + low + 44, parts, sentence: this.sentence(pass, training) };
    }

    /** The line that is taken out, its mean, and what the colours mean. */
    fit(at, up, level, slope, right, narrow) {
      const y = (t) => up(clamp(level + slope * t, -2.3, 2.3));
      return [
        line("live-mean", at(-1.9), up(level), at(1.9), up(level)),
        line("live-fit", at(-1.8), y(-1.8), at(1.8), y(1.8)),
        text("live-coloured live-c3", right - 92, 16, narrow ? "taken out" : "what normalization takes out", "end"),
        line("live-fit", right - 86, 12, right - 66, 12),
        text("live-coloured live-c1", right - 14, 16, "left", "end"),
        line("live-stick live-c1", right - 5, 4, right - 5, 20),
      ];
    }

    sentence({ level, slope, left, factor, gradX }, training) {
      const times = `times γ/σ = ${show(factor)}`;
      if (!training) return `In evaluation the statistics are constants: every input gets its own g, ${times}, and nothing from the others.`;
      if (left.every((v) => Math.abs(v) < 1e-9)) {
        return "All gradients lie on one line, and the line is what normalization takes out: nothing is left, every input gradient is 0. A gradient check with such a loss cannot fail.";
      }
      const taken = `Taken out: the line with mean ${show(level)} and slope ${show(slope)} along x̂. What is left, ${times}, goes to the inputs`;
      if (this.g.filter((v) => v !== 0).length > 1 || !this.g[this.pulled]) return `${taken}. Their gradients add up to 0.`;
      const own = gradX[this.pulled];
      return `Output ${this.pulled + 1} alone has a gradient, ${show(this.g[this.pulled])}. ${taken}: ${show(own, 3)} to its own, ${show(-own, 3)} to the four others together.`;
    }
  }

  define("backward", Backward);
})();
