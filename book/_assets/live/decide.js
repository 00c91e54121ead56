/* <live-decide>: which normalization? Asks the questions of a chart one by one, shows the way, and says why. Chapter 26.

The chart comes from the notebook: questions [words, what it means, where yes leads, where no does], answers
[name, why, whether it keeps batch normalization, what was measured, what its page is called, the page], and the rows of the picture
[how far set in, question, answer or null, whether by "no"]. A place is a question, or −1 − an answer. */

(() => {
  "use strict";
  const { Figure, define, html, circle, rect, text } = Live;

  /** The questions that are asked, and where it ends: a question, or −1 − an answer. */
  function walk(chart, said) {
    const path = [0];
    for (const yes of said) {
      const to = chart[path.at(-1)][yes ? 0 : 1];
      if (to < 0) return { path, at: to };
      path.push(to);
    }
    return { path, at: path.at(-1) };
  }

  class Decide extends Figure {
    static walk = walk;
    label = "Which normalization? The questions of the chart, and your way through them";

    build() {
      this.chart = this.data.questions.map(([, , yes, no]) => [yes, no]);
      this.said = [];
      this.panel.before(this.words); // above the buttons, which stay where they are
      this.measured = html("span");
      this.link = html("a");
      this.more = html("p", { class: "live-more" }, this.measured, " ", this.link);
      this.panel.after(this.more);
      const answer = (yes) => {
        this.said.push(yes);
        if (walk(this.chart, this.said).at < 0) {
          this.enableButtons();
          this.again.focus({ preventScroll: true }); // not lost with the greyed button
        }
      };
      [this.yes, this.no, this.earlier, this.again] = this.buttons("Your answer", [
        ["Yes", () => answer(true)],
        ["No", () => answer(false)],
        ["One back", () => this.undo(this.said.length - 1)],
        ["Start again", () => this.undo(0)],
      ]);
    }

    undo(length) {
      this.said.length = length;
      if (!length) this.yes.disabled = false;
      if (!length) this.yes.focus({ preventScroll: true });
    }

    enableButtons() {
      const ended = walk(this.chart, this.said).at < 0;
      this.yes.disabled = this.no.disabled = ended;
      this.earlier.disabled = this.again.disabled = !this.said.length;
    }

    draw(width) {
      this.enableButtons();
      const { path, at } = walk(this.chart, this.said);
      this.more.hidden = at >= 0;
      if (at < 0) [, , , this.measured.textContent, this.link.textContent, this.link.href] = this.data.answers[-1 - at];
      const narrow = width < 480;
      const column = narrow ? 0 : Math.min(width - 190, 400);
      const parts = [];
      let y = 16;
      for (const [depth, question, answer, otherwise] of this.data.rows) {
        const x = 10 + 24 * depth;
        const step = path.indexOf(question);
        const said = step >= 0 ? this.said[step] : undefined;
        const here = at === question && !otherwise;
        const taken = answer !== null && at === answer && said === !otherwise;
        if (here) parts.push(rect("live-box live-now", x - 9, y - 12, (narrow ? width : column - 24) - x + 8, 24, 4));
        if (!otherwise) {
          const mark = step < 0 ? "live-ghost" : here ? "live-fill live-ink" : "live-fill live-c5";
          const word = said === undefined ? "" : said ? " – yes" : " – no";
          parts.push(circle(mark, x, y, 5));
          parts.push(text(step < 0 ? "" : "live-value", x + 12, y + 4.5, this.data.questions[question][0] + word));
          if (narrow && answer !== null) y += 22;
        }
        const way = otherwise ? "otherwise" : "yes";
        if (!narrow && otherwise) parts.push(text("", x + 12, y + 4.5, way));
        if (answer !== null) {
          const [name, , keeps] = this.data.answers[-1 - answer];
          const left = narrow ? x + 12 : column + 18;
          if (taken) parts.push(rect("live-box live-now", left - 5, y - 11, Math.min(width - left, narrow ? 264 : 172) + 4, 22, 4));
          if (!narrow && !otherwise) parts.push(text("live-note", column + 6, y + 4.5, way, "end"));
          parts.push(rect(`live-fill ${keeps ? "live-with" : "live-without"}`, left, y - 5, 10, 10));
          parts.push(text(taken ? "live-value" : "", left + 16, y + 4.5, narrow ? `${way}: ${name}` : name));
        }
        y += 27;
      }
      return { height: y, parts, sentence: this.sentence(path, at) };
    }

    sentence(path, at) {
      if (at >= 0) {
        const [words, more] = this.data.questions[at];
        return `Question ${path.length}: ${words} ${more}`;
      }
      const [name, why] = this.data.answers[-1 - at];
      return `After ${path.length === 1 ? "1 question" : `${path.length} questions`}: ${name}. ${why}`;
    }
  }

  define("decide", Decide);
})();
