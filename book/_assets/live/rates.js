/* <live-rates>: accuracy over the learning rate, from the rows that the notebook gives. Chapter 11.

`rows`: { norm, lr, accuracy, low, high, failed, runs } and any other setting, such as optimizer, init or steps: where it
has several values, there is a control for it. `norm` is "batch" or "none"; `failed` of the `runs` diverged. */

(() => {
  "use strict";
  const { Figure, define, line, circle, path, text, show, chart } = Live;

  const ARMS = [
    ["batch", "with BN", "live-with"],
    ["none", "without BN", "live-without"],
  ];
  const MEASURED = ["norm", "lr", "accuracy", "low", "high", "failed", "runs"];
  const NAMES = { optimizer: "Optimizer:", init: "Initial weights:", steps: "Updates:" };
  const WORDS = { default: "default", he: "He" };
  const WITHIN = 0.02; // below its best a rate is usable

  const unique = (values) => [...new Set(values)];
  const points = (share) => `${show(100 * share, 1)} %`;

  /** The best rate of an arm in one setting, and how good it is there; its usable rates, from the lowest to the highest. */
  function best(rows, setting, norm, within) {
    const arm = rows.filter((row) => row.norm === norm && Object.entries(setting).every(([name, value]) => row[name] === value));
    arm.sort((a, b) => a.lr - b.lr);
    if (!arm.length) return null;
    const top = arm.reduce((found, row) => (row.accuracy > found.accuracy ? row : found)); // of equals the lowest rate
    const usable = arm.filter((row) => row.accuracy >= top.accuracy - within).map((row) => row.lr);
    return { arm, lr: top.lr, accuracy: top.accuracy, usable: [Math.min(...usable), Math.max(...usable)] };
  }

  class Rates extends Figure {
    static best = best;
    label = "Validation accuracy over the learning rate, with batch normalization and without";

    build() {
      const { rows } = this.data;
      if (!rows?.length) throw new Error("live-rates needs rows");
      this.settings = Object.keys(rows[0]).filter((name) => !MEASURED.includes(name));
      for (const name of this.settings) {
        const values = unique(rows.map((row) => row[name]));
        if (values.length === 1) this.now[name] = values[0];
        else if (typeof values[0] === "number") {
          values.sort((a, b) => a - b);
          const label = (NAMES[name] ?? name).replace(":", "").toLowerCase();
          this.slider(name, label, { min: 0, max: values.length - 1, value: values.length - 1, map: (i) => values[i], text: (v) => v.toLocaleString("en") });
        } else this.choice(name, NAMES[name] ?? name, values.map((value) => [value, WORDS[value] ?? value]));
      }
      this.cursor = this.handle({
        label: "learning rate",
        axis: "x",
        step: 1,
        colour: "live-ink",
        hint: true,
        read: ({ x }) => this.nearest(this.at.back(x)),
        change: (i) => (this.lr = this.rates[i]),
      });
    }

    nearest(lr) {
      const far = this.rates.map((rate) => Math.abs(Math.log(rate / lr)));
      return far.indexOf(Math.min(...far));
    }

    draw(width) {
      const narrow = width < 480;
      const setting = Object.fromEntries(this.settings.map((name) => [name, this.now[name]]));
      const arms = ARMS.map(([norm, name, colour]) => ({ name, colour, ...best(this.data.rows, setting, norm, WITHIN) })).filter(({ arm }) => arm);
      this.rates = unique(arms.flatMap(({ arm }) => arm.map((row) => row.lr))).sort((a, b) => a - b);
      this.lr = this.rates[this.nearest(this.lr ?? arms[0].lr)];
      const [left, right, top, bottom] = [46, width - 14, 46, narrow ? 240 : 280];
      const room = 1.3;
      const [from, to] = [this.rates[0] / room, this.rates.at(-1) * room];
      const powers = [];
      for (let p = Math.ceil(Math.log10(from)); p <= Math.log10(to); p++) powers.push(10 ** p);
      const c = chart({
        left,
        right,
        top,
        bottom,
        x: { from, to, log: true, ticks: powers, show: (v) => String(Number(v.toPrecision(1))), name: "learning rate" },
        y: { from: 0, to: 1, ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], show: (v) => `${show(100 * v, 0)} %`, name: narrow ? "accuracy" : "validation accuracy" },
      });
      this.at = c.x;
      const parts = [...c.parts, line("live-mark-line live-fine", left, c.y(0.1), right, c.y(0.1))];
      parts.push(line("live-mark-line", c.x(this.lr), top, c.x(this.lr), bottom));
      arms.forEach(({ arm, colour, name, lr, accuracy, usable }, k) => {
        const at = (row, value) => `${c.x(row.lr).toFixed(1)} ${c.y(value).toFixed(1)}`;
        const ring = [...arm.map((row) => at(row, row.high)), ...[...arm].reverse().map((row) => at(row, row.low))];
        parts.push(path(`live-range ${colour}`, `M${ring.join("L")}Z`), c.curve(colour, arm.map((row) => [row.lr, row.accuracy])));
        for (const row of arm) {
          const kind = row.failed ? "live-hollow" : "live-fill";
          parts.push(circle(`${kind} ${colour}`, c.x(row.lr), c.y(row.accuracy), row.failed ? 4 : 3));
        }
        parts.push(circle(`live-ghost-ring ${colour}`, c.x(lr), c.y(accuracy), 9));
        const y = c.y(1) - 5 - 10 * (1 - k);
        const ends = usable.map(c.x);
        parts.push(line(`live-interval ${colour}`, ends[0] - 3, y, ends[1] + 3, y));
        const legend = right - (k ? 0 : 116);
        parts.push(text("live-tick", legend, 13, name, "end"), circle(`live-fill ${colour}`, legend - (k ? 86 : 64), 9, 5));
      });
      const here = arms.map(({ arm, name }) => [name, arm.find((row) => row.lr === this.lr)]).filter(([, row]) => row);
      const said = here.map(([name, row]) => `${name} ${points(row.accuracy)}`).join(", ");
      this.cursor.place(c.x(this.lr), bottom, this.rates.indexOf(this.lr), { min: 0, max: this.rates.length - 1, text: `${this.lr}: ${said}` });
      return { height: bottom + 44, parts, sentence: this.sentence(here, arms) };
    }

    sentence(here, arms) {
      const each = here.map(([name, { accuracy, low, high, failed, runs }]) => {
        const lost = failed ? `, ${failed === runs ? "all" : failed} of ${runs} runs diverged` : "";
        return `${points(accuracy)} ${name} (${points(low)} to ${points(high)}${lost})`;
      });
      const reach = arms.map(({ name, lr, accuracy, usable: [low, high] }) => `${name} ${points(accuracy)} at ${lr}, ${low === high ? "and at no other rate within two points of that" : `and within two points of that from ${low} to ${high}`}`);
      return `At a rate of ${this.lr}: ${each.join("; ")}. Best (rings; bars for the two points): ${reach.join("; ")}.`;
    }
  }

  define("rates", Rates);
})();
