/* <live-running>: the running statistics as an exponential average of what the batches say. Chapter 3. */

(() => {
  "use strict";
  const { Figure, define, line, circle, text, show, clamp, chart, normal } = Live;

  const BATCH = [2, 4, 5, 6, 8]; // the batch of the book
  const [MEAN, SD] = [5, 2]; // of the values that new batches are drawn from
  const MOST = { steps: 200, m: 64 };
  const ALPHAS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1];

  const sum = (values) => values.reduce((total, v) => total + v, 0);

  /** Equation 3.1 for one channel, from 0 and 1, over batches; without α equation 3.4, the cumulative average.

  Everything by step: what the batches say (`means`, `variances`), and what is kept (`mean`, `variance`). */
  function running(xs, alpha) {
    const said = { means: [], variances: [], mean: [], variance: [] };
    let [mean, variance] = [0, 1];
    xs.forEach((x, k) => {
      const a = alpha ?? 1 / (k + 1);
      const mu = sum(x) / x.length;
      const unbiased = sum(x.map((v) => (v - mu) ** 2)) / (x.length - 1);
      mean = (1 - a) * mean + a * mu;
      variance = (1 - a) * variance + a * unbiased;
      said.means.push(mu);
      said.variances.push(unbiased);
      said.mean.push(mean);
      said.variance.push(variance);
    });
    return said;
  }

  /** The weight of a batch in the average after step k, newest last; what is missing to one is that of the start. */
  const weights = (k, alpha) => Array.from({ length: k }, (_, j) => (alpha == null ? 1 / k : alpha * (1 - alpha) ** (k - 1 - j)));

  const halfLife = (alpha) => Math.log(0.5) / Math.log(1 - alpha);
  const percent = (share) => (share > 0 && share < 0.005 ? "less than 1 %" : `${show(100 * share, 0)} %`);

  class Running extends Figure {
    static running = running;
    label = "Running mean and running variance over the training steps, and the batches that they average";

    build() {
      this.step = 7;
      this.seed = 1;
      this.choice("batches", "Batches:", [
        ["same", "the one batch, again and again"],
        ["new", "a new one every step"],
      ]);
      this.choice("kind", "Average:", [
        ["exponential", "exponential"],
        ["cumulative", "cumulative (momentum=None)"],
      ]);
      this.slider("alpha", "α", {
        min: 0,
        max: ALPHAS.length - 1,
        value: ALPHAS.indexOf(0.1),
        map: (i) => ALPHAS[i],
        text: (a) => `${a}, halves in ${a === 1 ? 0 : show(halfLife(a), a < 0.1 ? 0 : 1)}`,
      });
      this.slider("steps", "steps", { min: 10, max: MOST.steps, step: 10, value: 40, text: String });
      this.slider("m", "batch size m", { min: 2, max: MOST.m, value: 5, text: String });
      [this.other] = this.buttons("Batches", [["other batches", () => (this.seed += 1)]]);
      this.cursor = this.handle({
        label: "step at which the average is looked at",
        axis: "x",
        step: 1,
        colour: "live-ink",
        hint: true,
        read: ({ x }) => this.at.back(x),
        change: (step) => (this.step = step),
      });
    }

    /** The batches that the averages are made of. */
    batches() {
      const { batches, steps, m } = this.now;
      if (batches === "same") return Array(steps).fill(BATCH);
      if (this.drawn !== this.seed) {
        this.drawn = this.seed;
        const random = normal(100 * this.seed);
        this.values = Array.from({ length: MOST.steps }, () => Array.from({ length: MOST.m }, () => MEAN + SD * random()));
      }
      return this.values.slice(0, steps).map((values) => values.slice(0, m));
    }

    draw(width) {
      const narrow = width < 480;
      const { batches, kind, alpha, steps } = this.now;
      const drawn = batches === "new";
      this.enable("m", drawn);
      this.enable("alpha", kind === "exponential");
      this.other.disabled = !drawn;
      this.step = Math.min(this.step, steps);
      const a = kind === "exponential" ? alpha : undefined;
      const said = running(this.batches(), a);
      const share = weights(this.step, a);
      const start = 1 - sum(share);
      const [left, right, high, gap] = [30, width - 12, narrow ? 130 : 150, 42];
      const every = steps / 10;
      const x = { from: 0, to: steps, ticks: Array.from({ length: 11 }, (_, i) => i * every), every: narrow ? 2 : 1 };
      const parts = [];
      const panels = [
        ["running mean", said.means, said.mean, 0, MEAN, "live-c1", 10],
        ["running variance (unbiased)", said.variances, said.variance, 1, drawn ? SD ** 2 : 5, "live-c2", 12],
      ];
      panels.forEach(([name, dots, kept, first, truth, colour, top], panel) => {
        const y0 = 26 + panel * (high + gap);
        const last = panel === panels.length - 1;
        const c = chart({
          left,
          top: y0,
          right,
          bottom: y0 + high,
          x: last ? { ...x, name: "training step" } : { ...x, show: () => "" },
          y: { from: 0, to: top, ticks: top === 10 ? [0, 5, 10] : [0, 4, 8, 12], name },
        });
        this.at = c.x;
        parts.push(...c.parts, line("live-mark-line live-dashed", left, c.y(truth), right, c.y(truth)));
        if (a < 1) {
          for (let n = 1; n <= 5 && n * halfLife(a) <= steps; n++) {
            const at = c.x(n * halfLife(a));
            parts.push(line("live-mark-line live-fine", at, y0, at, y0 + high));
            if (n === 1 && !panel) parts.push(text("live-tick", Math.max(at, left + 90), y0 - 12, "half-life"));
          }
        }
        dots.forEach((v, j) => {
          const weight = j < this.step ? Math.sqrt(share[j] / share[this.step - 1]) : 0;
          const kindOf = v > top ? `live-grain live-out` : weight ? `live-fill ${colour}` : "live-grain live-out";
          parts.push(circle(kindOf, c.x(j + 1), c.y(Math.min(v, top)), 1.5 + 3 * weight));
        });
        const points = [first, ...kept].map((v, k) => [k, clamp(v, 0, top)]);
        parts.push(c.curve(`${colour} live-faint`, points), c.curve(colour, points.slice(0, this.step + 1)));
        const now = points[this.step][1];
        parts.push(circle(`live-dot ${colour}`, c.x(this.step), c.y(now), 6));
        const end = this.step > 0.8 * steps;
        parts.push(text("live-value", c.x(this.step) + (end ? -10 : 10), c.y(now) + 18, show([first, ...kept][this.step]), end ? "end" : "start"));
        if (last) parts.push(line("live-mark-line", c.x(this.step), 26, c.x(this.step), y0 + high));
      });
      const bottom = 26 + 2 * high + gap;
      const words = `step ${this.step}: mean ${show([0, ...said.mean][this.step])}, variance ${show([1, ...said.variance][this.step])}`;
      this.cursor.place(this.at(this.step), bottom, this.step, { min: 0, max: steps, text: words });
      return { height: bottom + 42, parts, sentence: this.sentence(said, start) };
    }

    sentence(said, start) {
      const { batches, kind, alpha, steps, m } = this.now;
      if (!this.step) return "Before the first step the running mean is 0 and the running variance is 1. Nobody has measured these two.";
      const k = this.step;
      const half = kind === "exponential" && alpha < 1 ? `, ${show(k / halfLife(alpha), 1)} half-lives,` : "";
      const begin = `After ${k} ${k === 1 ? "step" : "steps"}${half} the running mean is ${show(said.mean[k - 1])} and the running variance ${show(said.variance[k - 1])};`;
      const goal = batches === "same" ? "every batch says 5 and 5." : `the values are drawn with mean ${MEAN} and variance ${SD ** 2}.`;
      if (kind === "cumulative") return `${begin} ${goal} All ${k} batches count the same, 1/${k} each, and the initial 0 and 1 are gone since the first step.`;
      if (alpha === 1) return `${begin} ${goal} With α = 1 they are what the last batch said, and nothing is averaged.`;
      const left = `The initial 0 and 1 still have a weight of ${percent(start)}.`;
      if (batches === "same") return `${begin} ${goal} ${left}`;
      const noise = Math.sqrt(alpha / (2 - alpha));
      const scatter = `The means of batches of ${m} scatter by ${show(SD / Math.sqrt(m))} around theirs; in the long run α = ${alpha} leaves ${percent(noise)} of that.`;
      return `${begin} ${goal} ${left} ${scatter}${alpha < 0.01 && steps < 3 * halfLife(alpha) ? " So slow an average has not arrived yet." : ""}`;
    }
  }

  define("running", Running);
})();
