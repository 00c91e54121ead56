/* <live-fold>: a layer of weights, batch normalization behind it, and both folded into one. Chapter 23. */

(() => {
  "use strict";
  const { Figure, define, line, circle, text, show, chart } = Live;

  const [FROM, TO] = [0, 4]; // of the input
  const [LOW, HIGH] = [-15, 15]; // of the output
  const EPS = 1e-5;
  const START = { w: 2, b: 1, mean: 5, std: 2, gamma: 3, beta: 1 };
  const FRESH = { mean: 0, std: 1, gamma: 1, beta: 0 };
  const MISTAKES = [
    ["none", "none"],
    ["nothing", "nothing is folded"],
    ["bias", "b is not scaled"],
    ["mean", "μ̄ is forgotten"],
    ["beta", "β is forgotten"],
    ["variance", "σ̄² for σ̄"],
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
      slider("mean", "running mean μ̄", -8, 8, 0.5);
      slider("std", "running sd σ̄", 0.5, 4, 0.25);
      slider("gamma", "γ", -3, 3, 0.25);
      slider("beta", "β", -5, 5, 0.5);
      this.buttons("The layer", [
        ["as trained", () => this.put(START)],
        ["as made", () => this.put(FRESH)],
        ["no bias", () => this.put({ b: 0 })],
      ]);
    }

    put(values) {
      for (const [name, value] of Object.entries(values)) this.set(name, value);
    }

    draw(width) {
      const { w, b, mean, std, gamma, beta, mistake } = this.now;
      const found = fold(w, b, mean, std * std, gamma, beta, EPS, mistake);
      const [weight, bias] = found.line;
      const [left, right, top, bottom] = [40, width - 14, 54, width < 480 ? 270 : 300];
      const c = chart({
        left,
        right,
        top,
        bottom,
        x: { from: FROM, to: TO, ticks: [0, 1, 2, 3, 4], name: "input x" },
        y: { from: LOW, to: HIGH, ticks: [-10, -5, 0, 5, 10], name: "output" },
      });
      /** Only what lies inside of the frame. */
      const points = (weight, bias, count) =>
        Array.from({ length: count + 1 }, (_, i) => FROM + (i * (TO - FROM)) / count)
          .map((x) => [x, weight * x + bias])
          .filter(([, y]) => y >= LOW && y <= HIGH);
      const drawn = (kind, weight, bias) => {
        const inside = points(weight, bias, 160);
        return inside.length > 1 ? [c.curve(kind, inside)] : [];
      };
      const parts = [
        ...c.parts,
        line("live-zero", left, c.y(0), right, c.y(0)),
        ...drawn("live-without", w, b),
        ...drawn("live-with", ...found.right),
        ...points(weight, bias, 16).map(([x, y]) => circle("live-dot live-ink", c.x(x), c.y(y), 4.5)),
      ];
      const keys = [
        ["live-without", "weights alone"],
        ["live-with", "normalized"],
      ];
      keys.forEach(([kind, words], i) => {
        const x = left + 62 + i * 130;
        parts.push(line(`live-curve ${kind}`, x, 24, x + 20, 24), text("live-tick", x + 26, 28.5, words));
      });
      parts.push(circle("live-dot live-ink", left + 12, 24, 4.5), text("live-tick", left + 20, 28.5, "fold"));
      return { height: bottom + 44, parts, sentence: this.sentence(found) };
    }

    sentence({ line: [weight, bias], right, apart }) {
      const { mistake } = this.now;
      const words = (slope, constant) => `${show(slope)}·x ${constant < 0 ? "−" : "+"} ${show(Math.abs(constant))}`;
      const made = `The fold is ${words(weight, bias)}, the two layers are ${words(...right)}`;
      if (mistake === "none") return `${made}: the same line, whatever the constants.`;
      if (apart < 1e-3) return `${made}: wrong, and no test with these constants sees it.`;
      return `${made}: wrong by up to ${show(apart)}.`;
    }
  }

  define("fold", Fold);
})();
