"use strict";

// What search shows of a page comes from search_texts.js: from file:// a page may not fetch another one.
if (location.pathname.endsWith("/search.html")) {
  const root = new URL(".", location.href).href;
  let texts;
  globalThis.fetch = async (address) => {
    texts ??= new Promise((resolve) => {
      const script = document.createElement("script");
      Object.assign(script, { src: "_static/search_texts.js", onload: resolve, onerror: resolve });
      document.head.append(script);
    });
    await texts;
    const name = new URL(address, root).href.slice(root.length).replace(/\.html$/, "");
    return new Response(`<div role="main">${globalThis.SEARCH_TEXTS?.[name] ?? ""}</div>`);
  };
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

// A link to a section that begins with a fold opens it: of the scoreboard's claims nothing else is there to see.
function openFold() {
  const section = document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("section");
  const fold = section?.querySelector(":scope > :is(h2, h3) + .cell .cell_output details:not([class])");
  if (fold) {
    fold.open = true;
  }
}
addEventListener("DOMContentLoaded", openFold);
addEventListener("hashchange", openFold);

// Paper is light. The colours of code are rules of a theme, so the theme itself changes while the page is printed.
let themeOnScreen;
addEventListener("beforeprint", () => {
  themeOnScreen ??= document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = themeOnScreen;
  themeOnScreen = undefined;
});

// The row under a chapter's title: print, and close what was opened.
document.addEventListener("click", (event) => {
  if (event.target.closest(".actions button")) {
    print();
  }
  document.querySelectorAll(".actions details[open]").forEach((box) => {
    box.open = box.contains(event.target);
  });
});

// A link to an equation, figure, citation or term shows it, while the pointer or the keyboard is on the link. What
// stands on another page is a copy in this page's <template> (book_previews.py). Touch follows the link, as ever.
const PREVIEWED = "div.math, figure, div.citation, dt";
const preview = Object.assign(document.createElement("div"), { className: "preview", id: "preview", role: "tooltip" });
let previewed = null; // the link whose preview is shown
let waiting = 0;

function previewOf(link) {
  const id = decodeURIComponent(link.hash.slice(1));
  const page = link.pathname.split("/").at(-1);
  const target =
    link.pathname === location.pathname
      ? document.getElementById(id)
      : document.getElementById("previews")?.content.querySelector(`[data-of="${CSS.escape(page)}#${CSS.escape(id)}"]`);
  if (target?.matches("[data-of]")) {
    return [...target.childNodes];
  }
  if (!target?.matches(PREVIEWED)) {
    return [];
  }
  return target.matches("dt") ? [target, target.nextElementSibling] : [target];
}

function showPreview(link) {
  const copies = previewOf(link).map((part) => part.cloneNode(true));
  if (!copies.length || previewed === link) {
    return;
  }
  hidePreview();
  preview.replaceChildren(...copies);
  preview.querySelectorAll(".live").forEach((part) => part.remove()); // of a live figure the picture is enough
  preview.querySelectorAll(".live-still").forEach((part) => part.classList.remove("live-still"));
  preview.querySelectorAll("[id]").forEach((part) => part.removeAttribute("id"));
  document.body.append(preview);
  const place = link.getClientRects()[0];
  const left = Math.min(place.left, document.documentElement.clientWidth - preview.offsetWidth - 16);
  const below = place.bottom + preview.offsetHeight < innerHeight || place.top < preview.offsetHeight;
  preview.style.left = `${Math.max(16, left) + scrollX}px`;
  preview.style.top = `${(below ? place.bottom : place.top - preview.offsetHeight) + scrollY}px`;
  link.setAttribute("aria-describedby", preview.id);
  previewed = link;
}

function hidePreview() {
  clearTimeout(waiting);
  preview.remove();
  previewed?.removeAttribute("aria-describedby");
  previewed = null;
}

const linkAt = (place) => place.closest?.("article a.internal[href*='#']");
document.addEventListener("pointerover", (event) => {
  if (event.pointerType === "touch") {
    return;
  }
  clearTimeout(waiting); // on the link, or on the way from it into its preview: that stays open
  const link = linkAt(event.target);
  if (link) {
    waiting = setTimeout(showPreview, 250, link);
  } else if (previewed && !preview.contains(event.target)) {
    waiting = setTimeout(hidePreview, 250);
  }
});
document.addEventListener("focusin", (event) => {
  const link = linkAt(event.target);
  if (link?.matches(":focus-visible")) {
    showPreview(link);
  } else if (!preview.contains(event.target)) {
    hidePreview();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    hidePreview();
    const box = document.querySelector(".actions details[open]");
    if (box) {
      box.open = false;
      box.querySelector("summary").focus();
    }
  }
});
