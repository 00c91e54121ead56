/* <live-fold>: a layer of weights, batch normalization behind it, and both folded into one. Chapter 23. */

(() => {
  "use strict";
  const { Figure, define, line, circle, text, show, chart } = Live;

  const [FROM, TO] = [0, 4]; // of the input
  const RANGES = [[15, 5], [50, 20], [150, 50], [400, 100]]; // of the output, to both sides, and its ticks // prettier-ignore
  const EPS = 0; // what it hides is said in the sentence
  const START = { w: 2, b: 1, mean: 5, std: 2, gamma: 3, beta: 1 };
  const FRESH = { mean: 0, std: 1, gamma: 1, beta: 0 };
  const MISTAKES = [
    ["none", "none"],
    ["nothing", "nothing is folded"],
    ["bias", "b is not scaled"],
    ["mean", "running mean is forgotten"],
    ["beta", "β is forgotten"],
    ["variance", "variance for sd"],
  ];

  /** W′ and b′ of equation 23.2, with a mistake; W and b of the layer in evaluation; and how far they are apart. */
  function fold(w, b, mean, variance, gamma, beta, eps, mistake) {
    const a = gamma / Math.sqrt(variance + eps);
    const right = [a * w, a * (b - mean) + beta];
    const factor = mistake === "variance" ? gamma / (variance + eps) : a;
    let [weight, bias] = [factor * w, factor * (b - mean) + beta];
    if (mistake === "nothing") [weight, bias] = [w, b];
    if (mistake === "bias") bias = b - a * mean + beta;
    if (mistake === "mean") bias = a * b + beta;
    if (mistake === "beta") bias = a * (b - mean);
    const apart = Math.max(...[FROM, TO].map((x) => Math.abs((weight - right[0]) * x + bias - right[1])));
    return { line: [weight, bias], right, apart };
  }

  class Fold extends Figure {
    static fold = fold;
    label = "The output of a layer of weights, of batch normalization behind it, and of the folded layer, over the input";

    build() {
      this.choice("mistake", "Mistake in the fold:", MISTAKES);
      const slider = (name, label, min, max, step) => this.slider(name, label, { min, max, step, value: START[name] });
      slider("w", "weight w", -3, 3, 0.25);
      slider("b", "bias b", -5, 5, 0.5);
      slider("mean", "running mean", -8, 8, 0.5);
      slider("std", "running sd", 0.5, 4, 0.25);
      slider("gamma", "γ", -3, 3, 0.25);
      slider("beta", "β", -5, 5, 0.5);
      this.buttons("The layer", [
        ["by hand", () => this.put(START)],
        ["as made", () => this.put(FRESH)],
        ["b = 0", () => this.put({ b: 0 })],
      ]);
    }

    put(values) {
      for (const [name, value] of Object.entries(values)) this.set(name, value);
    }

    draw(width) {
      const { w, b, mean, std, gamma, beta, mistake } = this.now;
      const found = fold(w, b, mean, std * std, gamma, beta, EPS, mistake);
      const [left, right, top, bottom] = [46, width - 14, 72, width < 480 ? 288 : 318];
      const ends = [[w, b], found.right, found.line].flatMap(([slope, constant]) => [FROM, TO].map((x) => Math.abs(slope * x + constant)));
      const [reach, step] = RANGES.find(([reach]) => reach >= Math.max(...ends)) ?? RANGES.at(-1);
      const ticks = [-3, -2, -1, 0, 1, 2, 3].map((i) => i * step).filter((v) => Math.abs(v) < reach);
      const c = chart({
        left,
        right,
        top,
        bottom,
        x: { from: FROM, to: TO, ticks: [0, 1, 2, 3, 4], name: "input x" },
        y: { from: -reach, to: reach, ticks, name: "output" },
      });
      const points = (weight, bias, count) =>
        Array.from({ length: count + 1 }, (_, i) => FROM + (i * (TO - FROM)) / count).map((x) => [x, weight * x + bias]);
      const parts = [
        ...c.parts,
        line("live-zero", left, c.y(0), right, c.y(0)),
        c.curve("live-without", points(w, b, 1)),
        c.curve("live-with", points(...found.right, 1)),
        ...points(...found.line, 16).map(([x, y]) => circle("live-dot live-ink", c.x(x), c.y(y), 4.5)),
      ];
      const keys = [
        ["live-without", "weights alone"],
        ["live-with", "normalized"],
      ];
      keys.forEach(([kind, words], i) => {
        const x = left + 56 + i * 130;
        parts.push(line(`live-curve ${kind}`, x, 24, x + 20, 24), text("live-tick", x + 26, 28.5, words));
      });
      parts.push(circle("live-dot live-ink", left + 6, 24, 4.5), text("live-tick", left + 14, 28.5, "fold"));
      return { height: bottom + 44, parts, sentence: this.sentence(found) };
    }

    sentence({ line: [weight, bias], right, apart }) {
      const { mistake } = this.now;
      const words = (slope, constant) => {
        const size = show(Math.abs(constant));
        return size === "0" ? `${show(slope)}·x` : `${show(slope)}·x ${constant < 0 ? "−" : "+"} ${size}`;
      };
      const made = `The fold is ${words(weight, bias)}, the two layers are ${words(...right)}`;
      if (mistake === "none") return `${made}: the same line, whatever the constants.`;
      if (apart < 1e-9) return `${made}: wrong, and at ε = 0 no test with these constants sees it.`;
      return `${made}: wrong by up to ${show(apart)}.`;
    }
  }

  define("fold", Fold);
})();
