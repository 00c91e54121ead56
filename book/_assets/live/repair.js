/* <live-repair>: running statistics that are wrong, what leaves the layer, and batches that repair them. Chapter 20. */

(() => {
  "use strict";
  const { Figure, define, line, rect, circle, text, show, clamp, chart, normal } = Live;

  const [MEAN, SD, EPS] = [5, 2, 1e-5]; // of what arrives
  const WRONG = [8, Math.sqrt(12)]; // the running mean and standard deviation at first: δ = 1.5, φ = 3, as in the still picture
  const MOST = 60;
  const ALPHAS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
  const [INTO, OUT] = [[-5, 17], [-5, 5]]; // what the axes show
  const TOP = 0.9; // density

  const sum = (values) => values.reduce((total, v) => total + v, 0);

  /** Running statistics after k batches of the values x, equation 3.1, without α equation 3.4; and evaluation's output.

  `left` is the share of the error that is left, equation 20.2. */
  function repair(x, mean, variance, alpha, k, eps) {
    const mu = sum(x) / x.length;
    const unbiased = sum(x.map((v) => (v - mu) ** 2)) / (x.length - 1);
    let left = 1;
    for (let step = 1; step <= k; step++) {
      const a = alpha ?? 1 / step;
      mean = (1 - a) * mean + a * mu;
      variance = (1 - a) * variance + a * unbiased;
      left *= 1 - a;
    }
    return { mean, variance, left, y: x.map((v) => (v - mean) / Math.sqrt(variance + eps)) };
  }

  /** The same shape at every visit, with exactly this mean and standard deviation. */
  const values = () => {
    const random = normal(4);
    const z = Array.from({ length: 800 }, random);
    const mean = sum(z) / z.length;
    const sd = Math.sqrt(sum(z.map((v) => (v - mean) ** 2)) / (z.length - 1));
    return z.map((v) => MEAN + (SD * (v - mean)) / sd);
  };

  class Repair extends Figure {
    static repair = repair;
    label = "What enters a layer, with its running mean and standard deviation; what leaves it; and the error that is left";

    build() {
      this.x = values();
      [this.mean, this.sd] = WRONG; // where the repair begins
      this.choice("kind", "Statistics:", [
        ["average", "moving average"],
        ["anew", "collected anew (update_bn)"],
      ]);
      this.slider("k", "batches", { min: 0, max: MOST, value: 0, text: String });
      this.slider("alpha", "α", { min: 0, max: ALPHAS.length - 1, value: ALPHAS.indexOf(0.1), map: (i) => ALPHAS[i], text: String });
      this.buttons("Batches", [
        ["one batch", () => this.set("k", Math.min(MOST, this.now.k + 1))],
        ["wrong again", () => this.begin(...WRONG)],
      ]);
      const handle = (label, colour, mark, read, change) =>
        this.handle({ label, axis: "x", step: 0.1, colour, mark, hint: mark === "μ̄", read: ({ x }) => read(this.at.back(x)), change });
      this.grips = [
        handle("running mean", "live-c2", "μ̄", (v) => v, (v) => this.begin(v, this.after()[1])),
        handle("running standard deviation", "live-c4", "σ̄", (v) => v - this.after()[0], (v) => this.begin(this.after()[0], v)),
      ];
    }

    /** From these statistics on, before any batch. */
    begin(mean, sd) {
      [this.mean, this.sd] = [mean, sd];
      this.set("k", 0);
    }

    found() {
      const { kind, k, alpha } = this.now;
      return repair(this.x, this.mean, this.sd ** 2, kind === "average" ? alpha : undefined, k, EPS);
    }

    after() {
      const { mean, variance } = this.found();
      return [mean, Math.sqrt(variance)];
    }

    /** A frame with the histogram of values: `colour` gives the class of a bar. */
    histogram(name, data, [from, to], ticks, place, every, colour) {
      const c = chart({ ...place, x: { from, to, ticks, every, name: "" }, y: { from: 0, to: 1, ticks: [], name } });
      const bins = 44;
      const wide = (to - from) / bins;
      const counts = Array(bins).fill(0);
      for (const v of data) counts[clamp(Math.floor((v - from) / wide), 0, bins - 1)] += 1;
      const most = (TOP * wide * data.length) / (from === OUT[0] && to === OUT[1] ? 1 : SD);
      const bars = counts.flatMap((count, i) => {
        const [x, y] = [c.x(from + i * wide), c.y(Math.min(1, count / most))];
        return count ? [rect(colour(from + (i + 0.5) * wide), x, y, c.x(from + (i + 1) * wide) - x - 1, place.bottom - y)] : [];
      });
      return { ...c, parts: [...c.parts, ...bars] };
    }

    draw(width) {
      const narrow = width < 480;
      const { kind, k, alpha } = this.now;
      this.enable("alpha", kind === "average");
      const { mean, variance, left, y } = this.found();
      const sd = Math.sqrt(variance);
      const [start, end, high, gap] = [34, width - 16, narrow ? 92 : 112, 56];
      const place = (row) => ({ left: start, right: end, top: 24 + row * (high + gap), bottom: 24 + row * (high + gap) + high });
      const into = this.histogram("what enters, x", this.x, INTO, [-4, -2, 0, 2, 4, 6, 8, 10, 12, 14, 16], place(0), narrow ? 2 : 1, () => "live-cell live-other");
      const out = this.histogram("what leaves, y (grey: a ReLU cuts it off)", y, OUT, [-4, -2, 0, 2, 4], place(1), 1, (v) => (v > 0 ? "live-fill live-c1" : "live-cell live-other"));
      const share = chart({
        ...place(2),
        x: { from: 0, to: MOST, ticks: [0, 10, 20, 30, 40, 50, 60], name: "batches in training mode" },
        y: { from: 0, to: 1, ticks: [0, 0.5, 1], name: "share of the error that is left" },
      });
      this.at = into.x;
      const { top, bottom } = place(0);
      const edges = [mean - sd, mean + sd].map((v) => clamp(into.x(v), start, end));
      const normalCurve = Array.from({ length: 81 }, (_, i) => OUT[0] + (i * (OUT[1] - OUT[0])) / 80).map((v) => [v, Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI) / TOP]);
      const remains = Array.from({ length: MOST + 1 }, (_, j) => [j, kind === "average" ? (1 - alpha) ** j : j ? 0 : 1]);
      const parts = [
        ...into.parts,
        rect("live-band", edges[0], top, edges[1] - edges[0], high),
        line("live-mark-line", into.x(mean), top, into.x(mean), bottom),
        line("live-mark-line live-dashed", into.x(MEAN), top, into.x(MEAN), bottom),
        ...out.parts,
        out.curve("live-ink live-faint", normalCurve),
        line("live-zero", out.x(0), place(1).top, out.x(0), place(1).bottom),
        ...share.parts,
        share.curve("live-c2", remains),
        circle("live-dot live-c2", share.x(k), share.y(left), 6),
      ];
      const [shift, factor] = [(mean - MEAN) / SD, variance / SD ** 2];
      const said = [`${show(mean)}, ${show(shift)} standard deviations off`, `${show(sd)}, the variance is ${show(factor)} times the right one`];
      this.grips[0].place(into.x(mean), bottom, mean, { min: -1, max: 11, text: said[0] });
      this.grips[1].place(into.x(mean + sd), bottom - 26, sd, { min: 0.5, max: 6, text: said[1] });
      return { height: place(2).bottom + 42, parts, sentence: this.sentence(shift, factor, left, y) };
    }

    sentence(shift, factor, left, y) {
      const { kind, k, alpha } = this.now;
      const mean = sum(y) / y.length;
      const sd = Math.sqrt(sum(y.map((v) => (v - mean) ** 2)) / y.length);
      const through = Math.round((100 * y.filter((v) => v > 0).length) / y.length);
      const size = Math.abs(shift);
      const off = size < 0.005 ? "right" : `${show(size)} sd too ${shift > 0 ? "high" : "low"}`;
      const state = `The running mean is ${off}, the running variance ${show(factor)} times the right one. What leaves has mean ${show(mean)} and standard deviation ${show(sd)}; a ReLU lets ${through} % of it through.`;
      const half = Math.log(0.5) / Math.log(1 - alpha);
      if (!k) return `Before any batch: ${state[0].toLowerCase()}${state.slice(1)}`;
      const batches = k === 1 ? "1 batch" : `${k} batches`;
      if (kind === "anew") return `Collected anew, ${batches}: nothing is left of what was there. ${state}`;
      return `After ${batches} with α = ${alpha} there is ${left < 0.005 ? "less than 1" : show(100 * left, 0)} % of the error left; it halves in ${show(half, 1)} batches. ${state}`;
    }
  }

  define("repair", Repair);
})();
