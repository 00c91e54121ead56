/* <live-decide>: which normalization? Asks the questions of a chart one by one, shows the way, and says why. Chapter 26.

The chart comes from the notebook: questions [words, what it means, where yes leads, where no does], answers
[name, why, whether it keeps batch normalization], and the rows of the picture
[how far set in, question, answer or null, whether by "no"]. A place is a question, or −1 − an answer. */

(() => {
  "use strict";
  const { Figure, define, line, circle, rect, text } = Live;

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
      const answer = (yes) => {
        this.said.push(yes);
        if (walk(this.chart, this.said).at < 0) {
          this.enableButtons();
          this.again.focus({ preventScroll: true }); // not lost with the greyed button
        }
      };
      [this.yes, this.no, this.back, this.again] = this.buttons("Your answer", [
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
      this.back.disabled = this.again.disabled = !this.said.length;
    }

    draw(width) {
      this.enableButtons();
      const { path, at } = walk(this.chart, this.said);
      const narrow = width < 480;
      const [high, start] = [narrow ? 40 : 27, 16];
      const parts = [];
      const column = narrow ? 0 : Math.min(width - 190, 400);
      this.data.rows.forEach(([depth, question, answer, otherwise], row) => {
        const [x, y] = [10 + 24 * depth, start + high * row];
        const step = path.indexOf(question);
        const said = step >= 0 ? this.said[step] : undefined;
        const here = at === question && !otherwise;
        const taken = answer !== null && at === answer && said === !otherwise;
        if (here) parts.push(rect("live-box live-now", x - 9, y - 12, (narrow ? width : column - 4) - x + 8, 24, 4));
        if (!otherwise) {
          const mark = step < 0 ? "live-ghost" : here ? "live-fill live-ink" : "live-fill live-c5";
          parts.push(circle(mark, x, y, 5));
          const word = said === undefined ? "" : said ? " – yes" : " – no";
          parts.push(text(step < 0 ? "" : "live-value", x + 12, y + 4.5, this.data.questions[question][0] + word));
        } else if (!narrow) parts.push(text("", x + 12, y + 4.5, "otherwise"));
        if (answer === null) return;
        const [name, , keeps] = this.data.answers[-1 - answer];
        const [left, top] = narrow ? [x + 12, otherwise ? y : y + 18] : [column + 18, y];
        if (taken) parts.push(rect("live-box live-now", left - 4, top - 11, narrow ? width - left : 190 - 18, 22, 4));
        if (!narrow) parts.push(line("live-axis", column - 2, y, column + 10, y));
        parts.push(rect(`live-fill ${keeps ? "live-with" : "live-without"}`, left, top - 5, 10, 10));
        const before = narrow ? (otherwise ? "otherwise: " : "yes: ") : "";
        parts.push(text(taken ? "live-value" : "", left + 16, top + 4.5, before + name));
      });
      return { height: start + high * this.data.rows.length, parts, sentence: this.sentence(path, at) };
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
