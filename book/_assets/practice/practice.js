"use strict";

// Exercises that can be tried in the page: the stub becomes an editor, and the book's own checker judges the answer.
// Nothing is loaded before the reader asks for it. Without JavaScript the page is as it was.
(() => {
  const { before, megabytes, parts } = JSON.parse(document.getElementById("practice").textContent);
  const licences = new URL("LICENSES.txt", document.currentScript.src).href;
  const INDENT = "    ";

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const button = (words) => make("button", { type: "button", class: "practice-button" }, words);
  const source = (cell) => cell.querySelector(".cell_input pre").textContent.trimEnd();

  // An answer is there again on the next visit; a browser that keeps nothing is no reason to fail.
  const kept = (name) => {
    const key = `bnbook.practice.${name}`;
    const attempt = (action) => {
      try {
        return action();
      } catch {
        return null;
      }
    };
    return {
      read: () => attempt(() => localStorage.getItem(key)),
      write: (text) => attempt(() => localStorage.setItem(key, text)),
      forget: () => attempt(() => localStorage.removeItem(key)),
    };
  };

  // Puts text in place of what is selected, so that the browser's "undo" knows of it.
  const insert = (editor, text) => {
    if (!document.execCommand("insertText", false, text)) {
      editor.setRangeText(text, editor.selectionStart, editor.selectionEnd, "end");
      editor.dispatchEvent(new Event("input"));
    }
  };

  // Tab indents the selected lines, with Shift it takes that back; without a selection it goes to the next stop.
  const indent = (editor, back) => {
    const { value, selectionStart: start, selectionEnd: end } = editor;
    const first = value.lastIndexOf("\n", start - 1) + 1;
    const lines = value.slice(first, end);
    if (!back && start === end) {
      insert(editor, INDENT.slice((start - first) % INDENT.length));
      return;
    }
    const changed = lines.replace(back ? /^ {1,4}/gm : /^(?=.)/gm, back ? "" : INDENT);
    if (changed === lines) return;
    editor.setSelectionRange(first, end);
    insert(editor, changed);
    if (start === end) editor.setSelectionRange(first + changed.length, first + changed.length);
    else editor.setSelectionRange(first, first + changed.length);
  };

  // A new line begins as the one before it, deeper behind a colon.
  const newLine = (editor) => {
    const line = editor.value.slice(0, editor.selectionStart).split("\n").pop();
    insert(editor, `\n${line.match(/^ */)[0]}${line.trimEnd().endsWith(":") ? INDENT : ""}`);
  };

  const makeEditor = (id, described) => {
    const editor = make("textarea", {
      id,
      class: "practice-code",
      "aria-describedby": described,
      autocapitalize: "off",
      autocomplete: "off",
      autocorrect: "off",
      spellcheck: "false",
      wrap: "off",
    });
    const grow = () => {
      editor.rows = Math.max(4, editor.value.split("\n").length + 1);
    };
    let leaving = false; // Escape was pressed: the next Tab goes on to the next button
    editor.addEventListener("keydown", (event) => {
      const left = leaving;
      leaving = event.key === "Escape" || (leaving && event.key === "Shift");
      if (event.isComposing || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "Tab" && !left) {
        event.preventDefault();
        indent(editor, event.shiftKey);
      } else if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        newLine(editor);
      }
    });
    editor.addEventListener("input", grow);
    return { editor, grow };
  };

  const cells = [...document.querySelectorAll(".cell.tag_exercise")];
  cells.forEach((cell) => {
    const calling = cell.nextElementSibling;
    const call = source(calling);
    const name = call.match(/^check\("([^"]+)"/)?.[1];
    if (before[name]) offer(cell, calling, call, name);
  });

  function offer(cell, calling, call, name) {
    const answer = kept(name);
    const start = button(answer.read() === null ? "Try it here" : "Go on with your answer");
    const note = make(
      "span",
      { class: "practice-note" },
      `Loads Python with NumPy (${megabytes} MB) once for this page; nothing leaves your computer. `,
      make("a", { href: licences }, "Licences"),
    );
    const bar = make("div", { class: "practice-bar" }, start, note);
    cell.append(bar);
    start.addEventListener("click", () => {
      bar.remove();
      open(cell, calling, call, name, answer);
      for (const other of document.querySelectorAll(".practice-note")) other.remove(); // it is said once
    });
  }

  function open(cell, calling, call, name, answer) {
    const stub = source(cell);
    const id = `practice-${name}`;
    const { editor, grow } = makeEditor(id, `${id}-keys`);
    const [run, stop, reset] = [button("Run"), button("Stop"), button("Reset")];
    const message = make("p", { class: "practice-message" });
    const trace = make("pre", { class: "practice-trace" });
    const printed = make("pre", { class: "practice-printed" });
    const said = make("div", { class: "practice-said", role: "status" }, message, trace, printed);
    const imports = make("pre", { class: "practice-before", tabindex: "0" }, before[name].join("\n"));
    let job;

    const show = (state, words, where = "") => {
      said.dataset.state = state;
      said.ariaBusy = state === "running"; // what is printed meanwhile is read out at the end
      message.textContent = words;
      trace.textContent = where;
      if (state === "running" || !state) printed.textContent = "";
      for (const box of [trace, printed]) {
        box.toggleAttribute("hidden", !box.textContent);
        if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
        else box.removeAttribute("tabindex");
      }
    };
    const busy = (yes) => {
      run.setAttribute("aria-disabled", yes); // not "disabled": that would take the focus away
      stop.setAttribute("aria-disabled", !yes);
    };
    const judge = async () => {
      if (job) return;
      busy(true);
      show("running", "Running …");
      const request = [{ before: before[name], answer: editor.value, call }];
      job = window.bookPython.run(parts, request, (text) => {
        printed.hidden = false;
        printed.append(text);
      });
      try {
        const { said: judged, stopped } = await job.done;
        if (stopped) show("stopped", "Stopped.");
        else {
          const [{ message: words, passed, trace: where }] = judged;
          show(passed ? "right" : passed === null ? "open" : "wrong", words, where);
        }
      } catch (error) {
        show("wrong", `Python could not run it (${error.message}). The notebook has the same exercise.`);
      }
      job = undefined;
      busy(false);
    };

    editor.value = answer.read() ?? stub;
    grow();
    editor.addEventListener("input", () => answer.write(editor.value));
    editor.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      judge();
    });
    run.addEventListener("click", judge);
    stop.addEventListener("click", () => job?.stop());
    reset.addEventListener("click", () => {
      editor.focus();
      editor.select();
      insert(editor, stub); // so that "undo" brings the answer back
      answer.forget();
      show("", "");
    });

    const keys = "Ctrl+Enter runs it. Tab indents; Escape, then Tab leaves the editor.";
    const box = make(
      "div",
      { class: "practice" },
      make("label", { class: "practice-label", for: id }, "Your answer"),
      editor,
      make("p", { class: "practice-keys", id: `${id}-keys` }, keys),
    );
    cell.querySelector(".cell_input").replaceWith(box);
    calling.querySelector(".cell_output")?.remove();
    calling.querySelector(".copybtn")?.remove(); // from the editor the keyboard comes to "Run"
    calling.append(
      make("div", { class: "practice-bar" }, run, stop, reset),
      said,
      make("details", { class: "practice-fold" }, make("summary", {}, "What runs before your answer"), imports),
    );
    busy(false);
    show("", "");
    editor.focus();
    editor.setSelectionRange(editor.value.length, editor.value.length);
    window.bookPython.prepare(parts).catch(() => {}); // while the reader writes; a failure is told when it is run
  }
})();
