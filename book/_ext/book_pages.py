"""What the book changes in the theme's pages, so that they read offline, are light, and work for everybody.

Theme: sphinx-book-theme 1.2.0 (pydata-sphinx-theme 0.16.1). Each change says what was wrong without it.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

# Applied to every finished page; each comment says what was wrong.
REWRITES: list[tuple[re.Pattern[str], str]] = [
    # A script of 1.5 MB that draws icons as SVG; site.css draws the dozen that are used.
    (re.compile(r'<script src="[^"]*scripts/fontawesome\.js[^"]*"></script>\s*'), ""),
    # A label that differs from the words seen confuses people who speak to their browser (WCAG 2.5.3).
    (re.compile(r'(<button class="btn search-button-field[^>]*?) title="Search" aria-label="Search"'), r"\1"),
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    # The sidebar's title stood outside every landmark that a screen reader lists.
    (re.compile(r'(<div id="pst-primary-sidebar")'), r'\1 role="complementary" aria-label="Contents of the book"'),
    # The arrow that unfolds the pages below one in the sidebar had no name.
    (re.compile(r'<summary>(<span class="toctree-toggle")'), r'<summary aria-label="Pages below">\1'),
    # A list of citations was a list of things that are no list items.
    (re.compile(r'(<div class="citation"[^>]*) role="doc-biblioentry"'), r'\1 role="listitem"'),
    # A folded solution says so.
    (
        re.compile(
            r"(tag_solution[^>]*>\s*<details[^>]*>\s*<summary>\s*<p.*?Show the) content(.*?Hide the) content", re.S
        ),
        r"\1 solution\2 solution",
    ),
    # What is folded says what it is; "content" was a cell that checks what the words say.
    (re.compile(r"(admonition-title\">)(?:Show|Hide) the source"), r"\1Code"),
    (re.compile(r"(admonition-title\">)(?:Show|Hide) the content"), r"\1The check"),
]


# What no page loads.
UNUSED = ["*.map", "_static/scripts/fontawesome.js*", "_static/sphinx-thebe.*", "_static/*webpack-macros.html"]

# The site's own address leads to the book's first page, without a script.
REDIRECT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="0; url={page}">
<title>{title}</title>
</head>
<body><main><h1>{title}</h1><p><a href="{page}">Open the book</a></p></main></body>
</html>
"""


def configure(app: Sphinx, config: Config) -> None:
    # Without a default the theme prints "Got invalid theme mode" to the console.
    config.html_context.setdefault("default_mode", "auto")


def drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document) -> None:
    """sphinx-thebe writes its script into every page, twice, also where it is off: a page error."""
    context["script_files"] = [s for s in context["script_files"] if not is_thebe(s)]
    context["css_files"] = [s for s in context["css_files"] if not is_thebe(s)]


def is_thebe(file: object) -> bool:
    return "thebe" in str(getattr(file, "filename", file)) or "thebe" in getattr(file, "attributes", {}).get("body", "")


def rewrite_pages(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    if app.config.root_doc != "index":
        redirect = REDIRECT.format(page=f"{app.config.root_doc}.html", title=app.config.html_title)
        (out / "index.html").write_text(redirect, encoding="utf-8")
    for page in out.rglob("*.html"):
        before = text = page.read_text(encoding="utf-8")
        for pattern, replacement in REWRITES:
            text = pattern.sub(replacement, text)
        if text != before:
            page.write_text(text, encoding="utf-8")
    for unused in UNUSED:
        for file in out.rglob(unused):
            file.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", configure)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", rewrite_pages, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
