"use strict";

// From file:// a page may not fetch another one, and search would end in an error: there it lists titles alone.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// What scrolls sideways can be reached, and so scrolled, by keyboard; code that does is marked.
function markWhatScrolls() {
  for (const box of document.querySelectorAll("div.math > .equation, .pst-scrollable-table-container, .output.text_html")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
    } else {
      box.removeAttribute("tabindex");
    }
  }
  for (const code of document.querySelectorAll("div.highlight pre")) {
    code.classList.toggle("wide", code.scrollWidth > code.clientWidth);
  }
}
addEventListener("load", markWhatScrolls);
addEventListener("resize", markWhatScrolls);
