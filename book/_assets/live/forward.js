/* <live-forward>: the batch, minus its mean, divided by σ, scaled and shifted; all of it can be pulled. Chapter 2. */

(() => {
  "use strict";
  const { Figure, define, line, rect, circle, path, text, show, clamp, scale, normal } = Live;

  const BATCH = [2, 4, 5, 6, 8]; // the batch of the book
  const [LOW, HIGH] = [-6, 12];
  const PULLED = 8; // of more values the others are a heap of grains

  const sum = (values) => values.reduce((total, v) => total + v, 0);

  /** Equations 2.1 and 2.2 for one channel. */
  function batchNorm(x, gamma, beta, eps) {
    const mean = sum(x) / x.length;
    const centered = x.map((v) => v - mean);
    const variance = sum(centered.map((v) => v * v)) / x.length;
    const xHat = centered.map((v) => v / Math.sqrt(variance + eps));
    return { mean, variance, centered, xHat, y: xHat.map((v) => gamma * v + beta) };
  }

  /** m values: those of the book, then others of their mean and spread. */
  function values(m) {
    const random = normal(1);
    const more = Array.from({ length: m }, () => clamp(Math.round(10 * (5 + 2 * random())) / 10, LOW, HIGH));
    return [...BATCH, ...more].slice(0, m);
  }

  class Forward extends Figure {
    static batchNorm = batchNorm;
    label = "A batch of values and the three steps of batch normalization, on four number lines";

    build() {
      this.x = [];
      this.slider("gamma", "scale γ", { min: -3, max: 3, step: 0.1, value: 3 });
      this.slider("beta", "shift β", { min: -4, max: 8, step: 0.1, value: 1 });
      this.slider("eps", "ε", {
        min: -5,
        max: 1,
        step: 0.5,
        value: -5,
        map: (power) => 10 ** power,
        text: (v) => (v < 0.01 ? v.toExponential(0).replace("-", "−") : show(v, 2)),
      });
      this.slider("m", "batch size m", { min: 2, max: 64, value: 5, map: (m) => this.resize(m), text: String });
      this.buttons("Batches to try", [
        ["the one batch", () => this.load(BATCH)],
        ["two values", () => this.load([2, 8])],
        ["an outlier", () => this.load([-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6, 9])],
        ["all equal", () => this.load([4, 4, 4, 4, 4])],
      ]);
      // The whole batch: its mean moves it, its spread stretches it.
      this.mean = this.whole("mean μ of the batch, moves all values together", "M0 -9l9 16h-18z", (mean, old) => (v) => v - old + mean);
      this.spread = this.whole("standard deviation σ of the batch, stretches it", "M-4 -10h8v20h-8z", (spread, old, mean) => (v) => mean + ((v - mean) * spread) / old);
    }

    /** A handle that changes all values; how, `change` says of the new and the old statistic. */
    whole(label, shape, change) {
      const handle = this.handle({
        label,
        shape,
        axis: "x",
        step: 0.1,
        colour: "live-ink",
        read: ({ x }) => this.at.back(x) - (handle === this.spread ? this.centre : 0),
        change: (to) => (this.x = this.x.map(change(to, handle.value, this.centre))),
        start: () => this.grasp(),
        end: () => this.release(),
      });
      return handle;
    }

    resize(m) {
      this.x = [...this.x.slice(0, m), ...values(m).slice(this.x.length)];
      this.dots ??= [];
      while (this.dots.length < Math.min(m, PULLED)) {
        const i = this.dots.length;
        this.dots.push(
          this.handle({
            label: `value ${i + 1} of the batch`,
            axis: "x",
            step: 0.1,
            colour: `live-c${i + 1}`,
            mark: String(i + 1),
            hint: i === 0,
            read: ({ x }) => this.at.back(x),
            change: (v) => (this.x[i] = v),
            start: () => this.grasp(i),
            end: () => this.release(),
          }),
        );
      }
      for (const dot of this.dots.splice(m)) dot.remove();
      return m;
    }

    load(x) {
      const from = x.map((v, i) => this.x[i] ?? v);
      this.set("m", x.length);
      this.x = from;
      this.glide(from, x, (at) => (this.x = at));
    }

    /** Where the outputs were when something was taken hold of stays visible: one sees that all of them move, or none. */
    grasp(i) {
      this.held = i;
      this.ghosts = this.pass().y;
    }

    release() {
      this.held = this.ghosts = null;
    }

    pass() {
      return batchNorm(this.x, this.now.gamma, this.now.beta, this.now.eps);
    }

    draw(width) {
      const narrow = width < 480;
      const { gamma, beta, eps, m } = this.now;
      const { mean, variance, centered, xHat, y } = this.pass();
      const [left, right, top, gap] = [narrow ? 44 : 116, narrow ? 14 : 20, 34, narrow ? 72 : 80];
      const at = (this.at = scale(LOW, HIGH, left, width - right));
      const inside = (v) => at(clamp(v, LOW - 0.3, HIGH + 0.3));
      const sigma = Math.sqrt(variance);
      const unit = Math.sqrt(variance / (variance + eps)) || 0;
      this.centre = mean;
      const rows = [
        ["x", "the batch", this.x, mean, sigma],
        ["x−μ", "minus its mean", centered, 0, sigma],
        ["x̂", "divided by √(σ²+ε)", xHat, 0, unit],
        ["y", "γ x̂ + β", y, beta, Math.abs(gamma) * unit],
      ];
      const level = (k) => top + k * gap;
      const parts = [];
      for (let v = LOW; v <= HIGH; v += 2) {
        parts.push(line(v ? "live-grid" : "live-zero", at(v), 8, at(v), level(3) + 10));
        if (!narrow || v % 4 === 0) parts.push(text("live-tick", at(v), level(3) + 30, show(v), "middle"));
      }
      rows.forEach(([name, note, row, centre, spread], k) => {
        const [from, to] = [inside(centre - spread), inside(centre + spread)];
        parts.push(rect("live-band", from, level(k) - 16, Math.max(0, to - from), 32, 6));
        parts.push(line("live-axis", left, level(k), width - right, level(k)));
        parts.push(text("live-name", 2, level(k) + (narrow ? 5 : -1), name));
        if (!narrow) parts.push(text("live-note", 2, level(k) + 17, note));
        if (k) parts.push(path("live-fill live-ink", `M${inside(centre)} ${level(k) + 12}l5 9h-10z`));
        if (k < 3) row.forEach((v, i) => parts.push(this.thread(i, inside(v), level(k), inside(rows[k + 1][2][i]), level(k + 1))));
      });
      rows.forEach(([, , row], k) => {
        const heap = {};
        row.forEach((v, i) => {
          const out = v < LOW - 0.3 || v > HIGH + 0.3 ? " live-out" : "";
          if (i >= PULLED) {
            const column = 6 * Math.round(inside(v) / 6);
            heap[column] = (heap[column] ?? 0) + 1;
            parts.push(circle(`live-grain${out}`, column, level(k) + 2 - 6 * heap[column], 2.5));
          } else if (k) parts.push(circle(`live-dot live-c${i + 1}${out}`, inside(v), level(k), 7));
        });
        if (this.held != null && k) parts.push(text("live-value", inside(row[this.held]), level(k) - 14, show(row[this.held]), "middle"));
      });
      for (const v of this.ghosts ?? []) if (m <= PULLED) parts.push(circle("live-ghost", inside(v), level(3), 7));
      const limits = { min: LOW, max: HIGH };
      this.dots.forEach((dot, i) => dot.place(at(this.x[i]), level(0), this.x[i], { ...limits, text: `${show(this.x[i])}, which becomes ${show(y[i])}` }));
      parts.push(text("live-value", at(mean) + 11, level(0) + 34, "μ"), text("live-value", inside(mean + sigma), level(0) - 18, "σ", "middle"));
      this.placeWhole(at, level(0) + 22, mean, sigma);
      return { height: level(3) + 38, parts, sentence: this.sentence(mean, variance, xHat) };
    }

    /** The batch can be moved and stretched as far as all of it stays on the line. */
    placeWhole(at, y, mean, sigma) {
      const [least, most] = [Math.min(...this.x), Math.max(...this.x)];
      this.mean.place(at(mean), y, mean, { min: mean + LOW - least, max: mean + HIGH - most });
      const room = Math.min((HIGH - mean) / (most - mean), (mean - LOW) / (mean - least));
      if (sigma > 0.05) this.spread.place(at(mean + sigma), y - 22, sigma, { min: 0.1, max: sigma * Math.max(1, room) });
      else this.spread.hide(); // nothing to stretch
    }

    thread(i, x1, y1, x2, y2) {
      const middle = (y1 + y2) / 2;
      const kind = i >= PULLED ? "live-thin" : `live-c${i + 1}${i === this.held ? " live-strong" : ""}`;
      return path(`live-thread ${kind}`, `M${x1} ${y1}C${x1} ${middle} ${x2} ${middle} ${x2} ${y2}`);
    }

    sentence(mean, variance, xHat) {
      const { gamma, beta, eps, m } = this.now;
      const rho = eps / (variance + eps);
      if (variance < 1e-12) return `${m} equal values have no variance: x̂ is 0 and every output is β = ${show(beta)}. The input is gone.`;
      const start = `${m} values with mean μ = ${show(mean)} and variance σ² = ${show(variance)} get mean ${show(beta)} and variance ${show(gamma ** 2 * (1 - rho))}.`;
      if (rho > 0.02) return `${start} ε is ${show(100 * rho, 0)} % of σ² + ε, so x̂ has variance ${show(1 - rho)} and not 1.`;
      if (m === 2) return `${start} Of two values one thing alone is left, which is larger: x̂ is −1 and 1, wherever you pull them.`;
      if (gamma < -0.05) return `${start} A negative γ turns their order around.`;
      const [largest, bound] = [Math.max(...xHat.map(Math.abs)), Math.sqrt(m - 1)];
      if (largest > 0.97 * bound) return `${start} One value alone holds nearly all of the variance: |x̂| = ${show(largest)}, and √(m − 1) = ${show(bound)} is the most that is possible.`;
      const undone = Math.abs(beta - mean) < 0.051 && Math.abs(gamma - Math.sqrt(variance)) < 0.051;
      if (undone) return `${start} γ = σ and β = μ: this batch comes out as it went in. Pull one value, and all outputs move; pull μ or σ, and none does.`;
      return start;
    }
  }

  define("forward", Forward);
})();
