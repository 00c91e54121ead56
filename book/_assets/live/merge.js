/* <live-merge>: a batch that is cut into two shards, and what each must tell the other. Chapter 24, equation 24.1. */

(() => {
  "use strict";
  const { Figure, define, line, rect, circle, text, show, scale } = Live;

  const ORDERS = { sorted: [2, 4, 5, 6, 8], mixed: [6, 2, 8, 5, 4] }; // the batch of the book

  const sum = (values) => values.reduce((total, v) => total + v, 0);

  /** (m, μ, M₂) of a shard; of none, zeros. */
  function part(values) {
    const m = values.length;
    const mean = m ? sum(values) / m : 0;
    return { m, mean, M2: sum(values.map((v) => (v - mean) ** 2)) };
  }

  /** The shards before and behind the cut, merged, and what averaging their means and variances gives. */
  function merge(values, cut) {
    const [a, b] = [part(values.slice(0, cut)), part(values.slice(cut))];
    const m = a.m + b.m;
    const d = a.m && b.m ? b.mean - a.mean : 0;
    const between = (d * d * a.m * b.m) / m;
    const both = [a, b].filter((p) => p.m);
    return {
      a: [a.m, a.mean, a.M2],
      b: [b.m, b.mean, b.M2],
      between,
      mean: (a.m * a.mean + b.m * b.mean) / m,
      M2: a.M2 + b.M2 + between,
      averaged: [sum(both.map((p) => p.mean)) / both.length, sum(both.map((p) => p.M2 / p.m)) / both.length],
    };
  }

  class Merge extends Figure {
    static merge = merge;
    label = "A batch of five values cut into two shards; their statistics, and those of both together";

    build() {
      this.cut = 3;
      this.choice("order", "The batch:", [
        ["sorted", "sorted"],
        ["mixed", "mixed"],
      ]);
      this.handle_ = this.handle({
        label: "the cut: how many values the first device has",
        axis: "x",
        step: 1,
        colour: "live-ink",
        hint: true,
        read: ({ x }) => this.at.back(x),
        change: (cut) => (this.cut = cut),
      });
    }

    draw(width) {
      const narrow = width < 480;
      const values = ORDERS[this.now.order];
      const { cut } = this;
      const found = merge(values, cut);
      const n = values.length;
      const variance = found.M2 / n;
      const [left, right] = [narrow ? 14 : 150, width - 16];
      const colour = (i) => (i < cut ? "live-c1" : "live-c2");
      const parts = [];
      const name = (y, words) => parts.push(text("live-tick", 1, narrow ? y - 26 : y + 4, words));

      // The batch as it is handed out, with the cut.
      const tape = narrow ? 52 : 36;
      this.at = scale(0, n, left, right);
      name(tape, narrow ? "the batch, first device | second device" : "the batch, cut");
      values.forEach((v, i) => {
        const x = this.at(i + 0.5);
        parts.push(circle(`live-dot ${colour(i)}`, x, tape, narrow ? 11 : 14), text("live-mark", x, tape + 4, show(v), "middle"));
      });
      parts.push(line("live-mark-line", this.at(cut), tape - 26, this.at(cut), tape + 26));

      // Each shard, and all, on one number line: values, mean, one standard deviation to both sides.
      const at = scale(1, 9, left, right);
      const step = narrow ? 66 : 50;
      const levels = [1, 2, 3, 4].map((k) => tape + 8 + k * step);
      const rows = [
        ["first device", values.slice(0, cut), found.a[1], found.a[2] / found.a[0], "live-c1"],
        ["second device", values.slice(cut), found.b[1], found.b[2] / found.b[0], "live-c2"],
        ["merged", values, found.mean, variance, "live-c3"],
        ["averaged", [], ...found.averaged, "live-c5"],
      ];
      rows.forEach(([words, own, mean, spread, c], k) => {
        const y = levels[k];
        const empty = k < 2 && !own.length;
        const alone = k === 3 && !(found.a[0] && found.b[0]); // nothing to take the mean with
        const said = empty ? "no values" : `μ ${show(mean)}, σ² ${show(spread)}${alone ? " (one device alone)" : ""}`;
        name(y, words);
        parts.push(line("live-axis", left, y, right, y));
        parts.push(text("live-value", right, y - 13, said, "end"));
        if (empty) return;
        const sd = Math.sqrt(spread);
        parts.push(rect("live-band", at(mean - sd), y - 9, at(mean + sd) - at(mean - sd), 18, 5));
        for (const v of own) parts.push(circle("live-grain", at(v), y, 4));
        parts.push(line(`live-stick ${c}`, at(mean), y - 11, at(mean), y + 11));
      });
      for (let v = 2; v <= 8; v += 2) parts.push(text("live-tick", at(v), levels[3] + 22, show(v), "middle"));

      // M₂ of all as a sum of three.
      const bar = levels[3] + (narrow ? 78 : 62);
      const size = scale(0, found.M2, left, right);
      if (!narrow) name(bar, "M₂ of all");
      parts.push(text("live-tick", narrow ? 1 : left, bar - (narrow ? 26 : 20), "M₂ = first + second + what their distance adds"));
      let start = 0;
      for (const [value, c] of [[found.a[2], "live-c1"], [found.b[2], "live-c2"], [found.between, "live-c3"]]) {
        if (value <= 0) continue;
        parts.push(rect(`live-fill ${c}`, size(start), bar - 12, size(start + value) - size(start), 24, 0));
        if (size(value) - size(0) > 34) parts.push(text("live-mark", size(start + value / 2), bar + 4, show(value, 1), "middle"));
        start += value;
      }
      const words = `${cut} of ${n} values on the first device`;
      this.handle_.place(this.at(cut), tape, cut, { min: 0, max: n, text: words });
      return { height: bar + 22, parts, sentence: this.sentence(found, n) };
    }

    sentence({ a, b, between, mean, M2, averaged }, n) {
      const all = `μ = ${show(mean)} and σ² = ${show(M2 / n)}`;
      if (!a[0] || !b[0]) return `One device has all values, the other none: ${all}, and the empty one has no say.`;
      const sumOf = `M₂ = ${show(a[2])} + ${show(b[2])} + ${show(between)} = ${show(M2)}`;
      return `${sumOf}, so ${all} wherever the cut is. Averaging the two means and variances would give ${show(averaged[0])} and ${show(averaged[1])}.`;
    }
  }

  define("merge", Merge);
})();
