/* <live-graph>: the graph of chapter 4 with numbers, gate by gate: values on the way there, gradients on the way back. */

(() => {
  "use strict";
  const { Figure, define, html, rect, path, text, show } = Live;

  const [X, G, GAMMA, BETA, EPS] = [[2, 4, 5, 6, 8], [1, 0, 0, 0, 0], 2, 5, 0]; // the batch of the book

  const sum = (values) => values.reduce((total, v) => total + v, 0);

  /** Every value of the forward pass and every gradient of the backward pass, by the chain rule, step by step. */
  function passes(x, g, gamma, beta, eps) {
    const m = x.length;
    const mu = sum(x) / m;
    const centered = x.map((v) => v - mu);
    const variance = sum(centered.map((v) => v * v)) / m;
    const s = 1 / Math.sqrt(variance + eps);
    const xHat = centered.map((v) => v * s);
    const y = xHat.map((v) => gamma * v + beta);
    const gradXHat = g.map((v) => gamma * v);
    const gradGamma = sum(g.map((v, i) => v * xHat[i]));
    const gradBeta = sum(g);
    const gradS = sum(gradXHat.map((v, i) => v * centered[i]));
    const gradVariance = (-gradS * s ** 3) / 2;
    const gradCentered = gradXHat.map((v, i) => v * s + (gradVariance * 2 * centered[i]) / m);
    const gradMu = -sum(gradCentered);
    const gradX = gradCentered.map((v) => v + gradMu / m);
    return { mu, centered, variance, s, xHat, y, gradXHat, gradGamma, gradBeta, gradS, gradVariance, gradCentered, gradMu, gradX };
  }

  const ALL = { x: X, g: G, ...passes(X, G, GAMMA, BETA, EPS) };

  // A box: its row, its name, its value and its gradient. One value an example, or one for the batch at the side.
  const BOXES = {
    x: [0, "x", ["x"], ["gradX"]],
    mu: [1, "μ", ["mu"], ["gradMu"]],
    centered: [2, "x−μ", ["centered"], ["gradCentered"]],
    variance: [3, "σ²", ["variance"], ["gradVariance"]],
    s: [4, "s", ["s"], ["gradS"]],
    xHat: [5, "x̂", ["xHat"], ["gradXHat"]],
    affine: [6, "γ, β", ["gamma", "beta"], ["gradGamma", "gradBeta"]],
    y: [7, "y", ["y"], ["g"]],
  };
  const SIDE = new Set(["mu", "variance", "s", "affine"]);
  // The colours of the three paths: direct, through μ, through σ².
  const ARROWS = [
    ["x", "mu", "live-c3"],
    ["mu", "centered", "live-c3"],
    ["x", "centered", "live-c1"],
    ["centered", "variance", "live-c2"],
    ["variance", "s", "live-c2"],
    ["s", "xHat", "live-c2"],
    ["centered", "xHat", "live-c1"],
    ["xHat", "y", "live-c5"],
    ["affine", "y", "live-c5"],
  ];
  // A gate: the box that gets its number, the line of code, the local derivatives, and what it says.
  const FORWARD = [
    ["mu", "mu = x.mean()", "∂μ/∂xᵢ = 1/m = 1/5", "The mean uses all five values."],
    ["centered", "centered = x - mu", "∂(x−μ)/∂x = 1, ∂(x−μ)/∂μ = −1", "One μ is subtracted from every value."],
    ["variance", "var = (centered**2).mean()", "∂σ²/∂(xᵢ−μ) = 2 (xᵢ−μ)/m", "The variance uses all five values."],
    ["s", "s = 1 / np.sqrt(var + eps)", "∂s/∂σ² = −s³/2 = −1/16", "One factor for the whole batch."],
    ["xHat", "x_hat = centered * s", "∂x̂/∂(x−μ) = s, ∂x̂ᵢ/∂s = xᵢ−μ", "Mean 0, variance 1."],
    ["y", "y = weight * x_hat + bias", "∂y/∂x̂ = γ, ∂y/∂γ = x̂, ∂y/∂β = 1", "With γ = σ and β = μ the batch comes out as it went in."],
  ];
  const BACKWARD = [
    ["y", "grad_y = np.array([1, 0, 0, 0, 0])", "∂L/∂y = g", "The loss depends on the first output alone."],
    ["affine", "grad_weight = (grad_y * x_hat).sum()\ngrad_bias = grad_y.sum()", "∂y/∂γ = x̂, ∂y/∂β = 1", "γ and β are used by every example: their gradients are sums."],
    ["xHat", "grad_x_hat = weight * grad_y", "∂y/∂x̂ = γ = 2", "Still the first example alone."],
    ["s", "grad_s = (grad_x_hat * centered).sum()", "∂x̂ᵢ/∂s = xᵢ−μ", "s is used by every example: its gradient is a sum."],
    ["variance", "grad_var = grad_s * (-(s**3) / 2)", "∂s/∂σ² = −s³/2 = −1/16", "One number to one number: a product."],
    ["centered", "grad_centered = grad_x_hat * s + grad_var * 2 * centered / m", "∂x̂/∂(x−μ) = s, ∂σ²/∂(xᵢ−μ) = 2 (xᵢ−μ)/m", "The direct path and the one through σ² meet: now every example but the middle one has a gradient."],
    ["mu", "grad_mu = -grad_centered.sum()", "∂(x−μ)/∂μ = −1", "μ is used by every example: minus the sum."],
    ["x", "grad_x = grad_centered + grad_mu / m", "∂(x−μ)/∂x = 1, ∂μ/∂xᵢ = 1/m", "Every input gets a gradient, and their sum is 0."],
  ];
  const STEPS = FORWARD.length + BACKWARD.length;

  const write = (value) => (Array.isArray(value) ? `(${value.map((v) => show(v, 3)).join(", ")})` : show(value, 3));

  class Graph extends Figure {
    static passes = passes;
    label = "The graph of batch normalization: a box for every value, with the number and, below it, its gradient";

    build() {
      this.slider("step", "step", { min: 0, max: STEPS, value: 0, text: (k) => `${k} of ${STEPS}` });
      const go = (to) => this.set("step", Math.min(STEPS, Math.max(0, to)));
      this.steps = this.buttons("Steps", [
        ["‹ Back", () => go(this.now.step - 1)],
        ["Next ›", () => go(this.now.step + 1)],
        ["Start again", () => go(0)],
      ]);
      this.panel.addEventListener("keydown", (event) => {
        const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!by || event.target.tagName !== "BUTTON") return; // the slider has its own
        event.preventDefault();
        this.change(() => go(this.now.step + by));
      });
      this.code = html("code");
      this.local = html("p", { class: "live-local" });
      this.panel.append(html("pre", { class: "live-lines" }, this.code), this.local);
      this.data = { gamma: GAMMA, beta: BETA, ...ALL };
    }

    draw(width) {
      const narrow = width < 480;
      const step = this.now.step;
      const back = step > FORWARD.length;
      const gate = back ? BACKWARD[step - FORWARD.length - 1] : FORWARD[step - 1];
      const [column, name, side, gap] = narrow ? [37, 38, 103, 10] : [58, 62, 130, 50];
      const [boxWidth, boxHeight, pitch, top] = [name + 5 * column + 6, 42, 54, 6];
      const left = Math.max(0, Math.round((width - boxWidth - gap - side) / 2));
      const seat = (key) => {
        const [row] = BOXES[key];
        const [x, w] = SIDE.has(key) ? [left + boxWidth + gap, side] : [left, boxWidth];
        return { x, w, y: top + row * pitch, right: x + w, bottom: top + row * pitch + boxHeight };
      };
      const seen = new Set(["x", "affine", ...FORWARD.slice(0, step).map(([key]) => key)]);
      const graded = new Set(BACKWARD.slice(0, Math.max(0, step - FORWARD.length)).map(([key]) => key));
      const parts = [];
      for (const [from, to, colour] of ARROWS) {
        const active = gate && (back ? gate[0] === from && step > FORWARD.length + 1 : gate[0] === to);
        parts.push(...this.arrow(seat(from), seat(to), SIDE.has(from), SIDE.has(to), back, active, colour));
      }
      for (const [key, [, label, values, gradients]] of Object.entries(BOXES)) {
        const { x, y, w } = seat(key);
        parts.push(rect(`live-box${gate?.[0] === key ? " live-now" : ""}`, x, y, w, boxHeight, 6));
        parts.push(text("live-name", x + 8, y + 26, label));
        const numbers = (names, line, kind) => {
          const shown = names.flatMap((n) => this.data[n]);
          shown.forEach((v, i) => {
            const at = SIDE.has(key) ? x + w - 8 - (shown.length - 1 - i) * (narrow ? 25 : 34) : x + name + (i + 1) * column;
            parts.push(text(`${kind}${narrow ? " live-small" : ""}`, at, y + line, show(v, 3), "end"));
          });
        };
        if (seen.has(key)) numbers(values, 17, "live-number");
        if (graded.has(key)) numbers(gradients, 35, "live-number live-coloured live-c7");
      }
      this.explain(gate);
      this.steps[0].disabled = step === 0;
      this.steps[1].disabled = step === STEPS;
      return { height: top + 7 * pitch + boxHeight + 6, parts, sentence: this.sentence(gate, back) };
    }

    /** Values flow down the page, gradients up. */
    arrow(a, b, fromSide, toSide, back, active, colour) {
      const middle = (box) => box.x + box.w / 2;
      let points;
      if (!fromSide && !toSide) points = [[a.x + 60, a.bottom], [a.x + 60, b.y]]; // prettier-ignore
      else if (fromSide && toSide) points = [[middle(a), a.bottom], [middle(b), b.y]]; // prettier-ignore
      else if (toSide) points = [[a.right, a.y + 30], [middle(b), a.y + 30], [middle(b), b.y]]; // prettier-ignore
      else points = [[middle(a), a.bottom], [middle(a), b.y + 12], [b.right, b.y + 12]]; // prettier-ignore
      if (back) points.reverse();
      const [[x1, y1], [x2, y2]] = points.slice(-2);
      const angle = (Math.atan2(y2 - y1, x2 - x1) * 180) / Math.PI;
      const head = path(`live-fill ${active ? colour : "live-c5"}`, "M0 0l-8 -5v10z");
      head.setAttribute("transform", `translate(${x2} ${y2}) rotate(${angle})`);
      return [path(`live-edge ${active ? `${colour} live-strong` : "live-c5"}`, `M${points.join("L")}`), head];
    }

    explain(gate) {
      this.code.textContent = gate ? gate[1] : "x = np.array([2, 4, 5, 6, 8])\nweight, bias, eps, m = 2, 5, 0, 5";
      this.local.textContent = gate ? gate[2] : "";
    }

    sentence(gate, back) {
      if (!gate) return "The batch x and the parameters γ = 2 and β = 5 are given. Press Next, or use the arrow keys: six gates forward, then back. A box shows its value and, below it, its gradient.";
      const [, label, values, gradients] = BOXES[gate[0]];
      if (!back) return `Forward: ${label} = ${write(this.data[values[0]])}. ${gate[3]}`;
      const names = label.split(", ");
      const found = gradients.map((n, i) => `∂L/∂${names[i].length > 2 ? `(${names[i]})` : names[i]} = ${write(this.data[n])}`);
      return `Backward: ${found.join(" and ")}. ${gate[3]}`;
    }
  }

  define("graph", Graph);
})();
