/* <live-epsilon>: what ε does to channels that hardly vary. Chapter 2, equation 2.3. */

(() => {
  "use strict";
  const { Figure, define, line, circle, text, show, brief, chart, scale } = Live;

  const [LOW, HIGH] = [-6, 1]; // powers of ten of σ
  const BATCH = [2, 4, 5, 6, 8].map((v) => (v - 5) / 2); // the batch of the book, at standard deviation 1
  const KNOWN = [
    ["PyTorch", -5],
    ["Keras", -3],
  ];

  /** What the layer makes, at γ = 1, of a channel with standard deviation σ: its output's, and its amplification. */
  function epsilon(sigma, eps) {
    const variance = sigma * sigma;
    const rho = eps / (variance + eps);
    return { rho, output: Math.sqrt(variance / (variance + eps)), gain: 1 / Math.sqrt(variance + eps) };
  }

  class Epsilon extends Figure {
    static epsilon = epsilon;
    label = "Standard deviation of the output over that of the input, for a chosen ε; below, a batch before and after";

    build() {
      this.power = -3; // of σ
      this.slider("eps", "ε", { min: -10, max: 0, step: 0.5, value: -5, map: (power) => 10 ** power, text: brief });
      this.buttons("Frameworks", KNOWN.map(([name, power]) => [`ε of ${name}`, () => this.set("eps", power)]));
      this.sigma = this.handle({
        label: "standard deviation σ of the input, as a power of ten",
        axis: "x",
        step: 0.1,
        colour: "live-c1",
        hint: true,
        read: ({ x }) => Math.log10(this.at.back(x)),
        change: (power) => (this.power = power),
      });
    }

    draw(width) {
      const narrow = width < 480;
      const { eps } = this.now;
      const sigma = 10 ** this.power;
      const { rho, output, gain } = epsilon(sigma, eps);
      const [left, right, top, bottom] = [34, width - 14, 34, narrow ? 190 : 230];
      const powers = Array.from({ length: HIGH - LOW + 1 }, (_, i) => 10 ** (LOW + i));
      const c = chart({
        left,
        right,
        top,
        bottom,
        x: { from: powers[0], to: powers.at(-1), log: true, ticks: powers, every: narrow ? 2 : 1, name: "standard deviation σ of the input" },
        y: { from: 0, to: 1.05, ticks: [0, 0.5, 1], name: "standard deviation of the output" },
      });
      this.at = c.x;
      const curve = (kind, e) => {
        const points = Array.from({ length: 141 }, (_, i) => 10 ** (LOW + (i * (HIGH - LOW)) / 140));
        return c.curve(kind, points.map((s) => [s, epsilon(s, e).output]));
      };
      const parts = [...c.parts];
      for (const [, power] of KNOWN) parts.push(curve("live-c5 live-faint live-dashed", 10 ** power));
      const root = c.x(Math.sqrt(eps));
      if (root > left) {
        parts.push(line("live-mark-line live-fine", root, top, root, bottom));
        parts.push(text("live-value", root - 6, top + 22, "√ε", "end"));
      }
      parts.push(curve("live-c1", eps));
      parts.push(line("live-mark-line", c.x(sigma), c.y(output), c.x(sigma), bottom));
      KNOWN.forEach(([name, power], k) => parts.push(text("live-value", c.x(0.3 * 10 ** (power / 2)) + 12, c.y(0.08 + 0.16 * k), name)));
      const rows = [
        [bottom + 76, "divided by σ alone", 1, "live-c5"],
        [bottom + 130, "divided by √(σ² + ε)", output, "live-c1"],
      ];
      const at = scale(-1.75, 1.75, left, right);
      for (const [y, name, size, colour] of rows) {
        parts.push(text("live-tick", 1, y - 16, name), line("live-axis", left, y, right, y), line("live-zero", at(0), y - 8, at(0), y + 8));
        for (const v of BATCH) parts.push(circle(`live-dot ${colour}`, at(v * size), y, 7));
      }
      for (const v of [-1, 0, 1]) parts.push(text("live-tick", at(v), rows[1][0] + 26, show(v), "middle"));
      const said = `σ = ${brief(sigma)}, the output has ${show(output)}`;
      this.sigma.place(c.x(sigma), c.y(output), this.power, { min: LOW, max: HIGH, text: said });
      return { height: rows[1][0] + 34, parts, sentence: this.sentence(sigma, rho, output, gain) };
    }

    sentence(sigma, rho, output, gain) {
      const { eps } = this.now;
      const share = rho < 0.005 ? "Next to nothing" : rho > 0.995 ? "Nearly all" : `${show(100 * rho, 0)} %`;
      const start = `${share} of σ² + ε is ε = ${brief(eps)}: the output's standard deviation is ${output > 0.995 && output < 1 ? "practically 1" : brief(output)}.`;
      const most = `multiplies the channel by ${brief(gain)}; without ε it would be ${brief(1 / sigma)}`;
      if (rho > 0.5) return `${start} The layer ${most}. A channel that hardly varies stays quiet: by more than 1/√ε = ${brief(1 / Math.sqrt(eps))} nothing is amplified, its noise neither.`;
      return `${start} The layer ${most}.`;
    }
  }

  define("epsilon", Epsilon);
})();
