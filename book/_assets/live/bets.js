/* <live-bets>: how the reader's bets did, of all chapters; from this browser, where they are kept. Chapter 18. */

(() => {
  "use strict";
  const { Figure, define, html, circle, path, text, show } = Live;

  const KEY = "bnbook-bets";
  const CLOSE = 0.1; // of the axis: so near a curve counts as seen

  const read = () => {
    try {
      return JSON.parse(localStorage.getItem(KEY)) ?? {};
    } catch {
      return {}; // not allowed, or damaged
    }
  };

  /** Bets with a verdict, how many were right, and how many guessing would get right; curves, and how far off they were. */
  function tally(bets) {
    const judged = bets.filter((bet) => bet.right != null);
    const curves = bets.filter((bet) => bet.share != null).map((bet) => bet.share);
    const sum = (values) => values.reduce((total, v) => total + v, 0);
    return {
      judged: judged.length,
      right: judged.filter((bet) => bet.right).length,
      chance: sum(judged.map((bet) => 1 / bet.options)),
      curves: curves.length,
      share: curves.length ? sum(curves) / curves.length : 0,
    };
  }

  class Bets extends Figure {
    static tally = tally;
    label = "Your bets: a filled dot was right";

    build() {
      this.list = html("ul", { class: "live-bets" });
      this.panel.append(this.list);
      [this.clear] = this.buttons("Your bets", [["Forget all my bets", () => this.forget()]]);
      for (const event of ["bnbook-bets", "storage"]) addEventListener(event, () => this.redraw());
    }

    forget() {
      try {
        localStorage.removeItem(KEY);
      } catch {}
    }

    draw(width) {
      const bets = Object.values(read()).filter(({ said }) => said != null);
      this.clear.disabled = !bets.length;
      const columns = Math.max(1, Math.floor((width - 20) / 44));
      const parts = bets.flatMap((bet, i) => this.mark(bet, 24 + 44 * (i % columns), 22 + 56 * Math.floor(i / columns), i + 1));
      if (!bets.length) parts.push(circle("live-ghost", 24, 22, 12), text("live-tick", 48, 27, "no bet yet"));
      this.list.replaceChildren(...bets.map((bet, i) => this.line(bet, i + 1)));
      return { height: 56 * Math.max(1, Math.ceil(bets.length / columns)), parts, sentence: this.sentence(tally(bets)) };
    }

    right({ right, share }) {
      return right ?? (share == null ? null : share <= CLOSE);
    }

    mark(bet, x, y, number) {
      const right = this.right(bet);
      const parts = [text("live-tick", x, y + 28, String(number), "middle")];
      if (right == null) return [...parts, circle("live-ghost", x, y, 12)];
      if (right) return [...parts, circle("live-fill live-c1", x, y, 12)];
      return [...parts, circle("live-hollow live-c7", x, y, 12), path("live-curve live-c7", `M${x - 5} ${y - 5}l10 10m0 -10l-10 10`)];
    }

    line(bet, number) {
      const right = this.right(bet);
      const said = bet.bet
        ? `you said “${bet.bet}”; ${bet.found ? `measured: “${bet.found}”` : "no verdict yet"}`
        : `your curve was ${show(100 * bet.share, 0)} % of the axis away`;
      const mark = right == null ? "open" : right ? "right" : "wrong";
      return html("li", {}, `${number}. `, html("a", { href: bet.page }, bet.title), `: ${said} `, html("strong", {}, `(${mark})`));
    }

    sentence({ judged, right, chance, curves, share }) {
      const all = [];
      if (judged) all.push(`${right} of your ${judged} ${judged > 1 ? "verdicts were" : "verdict was"} right; guessing gets ${show(chance, 1)}.`);
      if (curves) all.push(`${curves > 1 ? `Your ${curves} curves were, on average,` : "Your curve was"} ${show(100 * share, 0)} % of the axis away from what was measured.`);
      if (all.length) return `${all.join(" ")} They are kept in this browser and nowhere else.`;
      return "You have placed no bet in this browser. Before their results, chapters 11 to 17 ask you for one; it is kept in this browser and nowhere else.";
    }
  }

  define("bets", Bets);
})();
