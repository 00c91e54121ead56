/* <live-company>: one example in changing company, by the statistics of its batch and by the running ones. Chapter 19. */

(() => {
  "use strict";
  const { Figure, define, line, rect, circle, text, show, clamp, scale, normal } = Live;

  const [LOW, HIGH] = [-3, 13];
  const [MEAN, SD, EPS] = [5, 2, 1e-5]; // what the running statistics have found
  const MOST = 64;
  const WORDS = { mixed: 0, small: -SD, large: SD }; // by how much the companions are shifted

  const sum = (values) => values.reduce((total, v) => total + v, 0);

  /** Equation 3.2, both its lines, for one example of a batch, with γ = 1 and β = 0. */
  function company(x, others, runningMean, runningVar, eps) {
    const m = others.length + 1;
    const mean = (x + sum(others)) / m;
    const variance = ((x - mean) ** 2 + sum(others.map((v) => (v - mean) ** 2))) / m;
    return {
      mean,
      variance,
      training: (x - mean) / Math.sqrt(variance + eps),
      evaluation: (x - runningMean) / Math.sqrt(runningVar + eps),
    };
  }

  class Company extends Figure {
    static company = company;
    label = "One example among its companions, and what becomes of it in training mode and in evaluation mode";

    build() {
      this.x = 8;
      this.random = normal(3);
      this.companies = [];
      this.choice("who", "Its companions:", [
        ["mixed", "mixed"],
        ["small", "all small (sorted data)"],
        ["large", "all large"],
      ]);
      this.slider("m", "batch size m", { min: 2, max: MOST, value: 4, text: String });
      this.buttons("Companions", [
        ["other companions", () => this.meet(1)],
        ["40 more", () => this.meet(40)],
        ["forget them", () => (this.companies = this.companies.slice(-1))],
      ]);
      this.meet(1);
      this.example = this.handle({
        label: "the example",
        axis: "x",
        step: 0.1,
        colour: "live-c1",
        hint: true,
        read: ({ x }) => this.at.back(x),
        change: (v) => (this.x = v),
      });
    }

    meet(times) {
      const some = Array.from({ length: times }, () => Array.from({ length: MOST - 1 }, () => this.random()));
      this.companies = [...this.companies, ...some].slice(-200);
    }

    draw(width) {
      const narrow = width < 480;
      const { who, m } = this.now;
      // Sorted data are alike: shifted, and less spread.
      const [shift, spread] = [WORDS[who], who === "mixed" ? SD : SD / 2];
      const groups = this.companies.map((draws) => draws.slice(0, m - 1).map((z) => clamp(MEAN + shift + spread * z, LOW, HIGH)));
      const results = groups.map((others) => company(this.x, others, MEAN, SD ** 2, EPS));
      const now = results.at(-1);
      const [left, right] = [narrow ? 14 : 176, width - 14];
      const at = (this.at = scale(LOW, HIGH, left, right));
      const hat = scale((LOW - MEAN) / SD, (HIGH - MEAN) / SD, left, right); // below one another: the same line
      const inside = (v) => clamp(hat(v), left, right);
      const levels = [52, 142, 222];
      const [parts, names] = [[], [["the batch", "x"], ["training mode", "by this batch"], ["evaluation", "by running statistics"]]];
      names.forEach(([name, note], k) => {
        const ticks = k ? [-4, -2, 0, 2, 4] : [-2, 0, 2, 4, 6, 8, 10, 12];
        parts.push(line("live-axis", left, levels[k], right, levels[k]));
        for (const v of ticks) {
          const x = k ? hat(v) : at(v);
          parts.push(line("live-grid", x, levels[k] - 14, x, levels[k] + 5));
          if (k !== 1) parts.push(text("live-tick", x, levels[k] + 20, show(v), "middle"));
        }
        if (narrow) parts.push(text("live-tick", 1, levels[k] - 26, k ? `${name}: x̂ ${note}` : name));
        else parts.push(text("live-value", 1, levels[k] - 2, name), text("live-note", 1, levels[k] + 15, k ? `x̂, ${note}` : note));
      });
      const sd = Math.sqrt(now.variance);
      const band = [now.mean - sd, now.mean + sd].map((v) => clamp(at(v), left, right));
      parts.push(rect("live-band", band[0], levels[0] - 13, band[1] - band[0], 26, 6));
      for (const v of groups.at(-1)) parts.push(circle("live-grain", at(v), levels[0], 4));
      results.slice(0, -1).forEach(({ training }, i) => {
        parts.push(circle("live-grain live-out", inside(training), levels[1] - 5 + ((7 * i) % 11), 3));
      });
      parts.push(circle("live-dot live-c1", inside(now.training), levels[1], 8), circle("live-dot live-c1", inside(now.evaluation), levels[2], 8));
      parts.push(text("live-value", inside(now.training), levels[1] - 14, show(now.training), "middle"));
      parts.push(text("live-value", inside(now.evaluation), levels[2] - 14, show(now.evaluation), "middle"));
      const words = `${show(this.x)}, in training mode ${show(now.training)}, in evaluation ${show(now.evaluation)}`;
      this.example.place(at(this.x), levels[0], this.x, { min: LOW, max: HIGH, text: words });
      return { height: levels[2] + 30, parts, sentence: this.sentence(now, results) };
    }

    sentence(now, results) {
      const { who, m } = this.now;
      const others = m === 2 ? "this companion" : `these ${m - 1} companions`;
      const start = `In evaluation mode ${show(this.x)} becomes ${show(now.evaluation)}, whoever is with it. With ${others} training mode makes ${show(now.training)} of it`;
      const all = results.map(({ training }) => training);
      const range = all.length > 1 ? `; over ${all.length} companies it was anything from ${show(Math.min(...all))} to ${show(Math.max(...all))}.` : ".";
      if (m === 2) return `${start}${range} Of two values training mode says only which is larger.`;
      if (who !== "mixed") return `${start}${range} Among its like an example is measured against its like: what they share is subtracted.`;
      return start + range;
    }
  }

  define("company", Company);
})();
