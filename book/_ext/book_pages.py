"""What the book changes in the theme's pages, so that they read offline, are light, and work for everybody.

Theme: sphinx-book-theme 1.2.0 (pydata-sphinx-theme 0.16.1). Each change says what was wrong without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config

NOSCRIPT = (Path(__file__).parents[1] / "_assets" / "noscript.css").read_text(encoding="utf-8")

# Applied to every finished page; each comment says what was wrong.
REWRITES: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
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
    # "auto" is no theme: without JavaScript code and boxes had no colours, and with it they came late.
    (re.compile(r'(<html[^>]* data-theme=)"auto"'), r'\1"light"'),
    (
        re.compile(r'document\.documentElement\.dataset\.theme = localStorage\.getItem\("theme"\) \|\| "auto";'),
        """const {dataset} = document.documentElement;
    dataset.theme = dataset.mode !== "auto" ? dataset.mode
      : matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";""",
    ),
    (re.compile(r"(\.pst-js-only \{ display: none !important; \})"), lambda rule: f"{rule[1]}\n{NOSCRIPT}"),
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


# What can be done with a chapter. From the disk a browser may show the notebook as text: so its name is said.
ACTIONS = """
<div class="actions" role="group" aria-label="This chapter">
<a href="{address}" download>Notebook</a>
<details><summary>Run</summary><div>
<p>In the folder of the book: <code>make lab</code>, then open <code>{name}</code>.
Without make: <code>jupyter lab {name}</code>.</p>
<p>“Notebook” is the same file. Opened from the disk, your browser may show it as text.</p>
</div></details>
<button type="button" class="pst-js-only">Print</button>
</div>
"""

PICTURE = re.compile(r'<img (?![^>]*\bwidth=)([^>]*?src="([^":]+)"[^>]*?)\s*/?>')
SVG_SIZE = re.compile(r'<svg\b[^>]*?\bviewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"')
POINT = 4 / 3  # pixels; figures as SVG are measured in points


SELECTOR = re.compile(r",(?![^()]*\))")  # a comma between selectors, not one in :is()
CLASS = re.compile(r"\.(-?[A-Za-z_][\w-]*)")
OPTIONAL = re.compile(r":(?:not|is|where)\((?:[^()]|\([^()]*\))*\)|/\*.*?\*/|url\([^)]*\)", re.S)
MADE_BY_SCRIPTS = ("bs-tooltip", "bs-popover")  # Bootstrap puts these names together


def configure(app: Sphinx, config: Config) -> None:
    # Without a default the theme prints "Got invalid theme mode" to the console.
    config.html_context.setdefault("default_mode", "auto")
    # Copied is what can be run; a button on every output would be another 40 stops for the keyboard.
    config.copybutton_selector = "div.cell_input div.highlight pre"
    # What is folded stays so on paper.
    config.togglebutton_open_on_print = False


def add_actions(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document) -> None:
    """Put one row under the title of a chapter: its notebook, how to run it, print."""
    if context.get("page_source_suffix") == ".ipynb" and pagename != app.config.root_doc:
        name = context["sourcename"]
        row = ACTIONS.format(address=context["pathto"](f"_sources/{name}", resource=True), name=name)
        context["body"] = context["body"].replace("</h1>", f"</h1>{row}", 1)


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
        rewrite(page, rewritten)
    for unused in UNUSED:
        for file in out.rglob(unused):
            file.unlink()


def rewrite(page: Path, change: Callable[[str], str]) -> None:
    before = page.read_text(encoding="utf-8")
    after = change(before)
    if after != before:
        page.write_text(after, encoding="utf-8")


def rewritten(text: str) -> str:
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    return text


def finish_pages(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    for page in out.rglob("*.html"):
        rewrite(page, lambda text, folder=page.parent: with_sizes(text, folder))
    lighten_styles(out)


def with_sizes(text: str, folder: Path) -> str:
    """Give pictures their width and height: without them the page jumps as they arrive, away from a link's target."""

    def sized(picture: re.Match[str]) -> str:
        file = folder / picture[2]
        if not file.is_file():
            return picture[0]  # the build's last check names it
        width, height = size(file)
        return f'<img {picture[1]} width="{width}" height="{height}" decoding="async">'

    return PICTURE.sub(sized, text)


def size(picture: Path) -> tuple[int, int]:
    if picture.suffix != ".svg":
        with Image.open(picture) as image:
            return image.size
    box = SVG_SIZE.search(picture.read_text(encoding="utf-8"))
    if box is None:
        raise ValueError(f"{picture} has no viewBox, and so no size on the page")
    return round(float(box[1]) * POINT), round(float(box[2]) * POINT)


def lighten_styles(out: Path) -> None:
    """Leave out of the theme's style sheets, 400 kB, the rules for classes that no page and no script names."""
    files = [*out.rglob("*.html"), *out.rglob("*.js")]
    words = set().union(*(re.findall(r"[\w-]+", file.read_text(encoding="utf-8")) for file in files))
    for style in (out / "_static" / "styles").glob("*.css"):
        style.write_text(used_rules(style.read_text(encoding="utf-8"), words), encoding="utf-8")


def used_rules(css: str, words: set[str]) -> str:
    """The rules of a minified style sheet of which a selector may match where only these words are classes."""
    kept, start = [], 0
    while (brace := css.find("{", start)) >= 0:
        end, depth = brace + 1, 1
        while depth:
            depth += {"{": 1, "}": -1}.get(css[end], 0)
            end += 1
        head, body = css[start:brace], css[brace + 1 : end - 1]
        if head.lstrip().startswith(("@media", "@supports")):
            body = used_rules(body, words)
            kept.append(f"{head}{{{body}}}" if body.strip() else "")
        elif any(may_match(selector, words) for selector in SELECTOR.split(head)):
            kept.append(f"{head}{{{body}}}")
        start = end
    return "".join(kept) + css[start:]


def may_match(selector: str, words: set[str]) -> bool:
    classes = CLASS.findall(OPTIONAL.sub("", selector))
    return all(name in words or name.startswith(MADE_BY_SCRIPTS) for name in classes)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", configure, priority=100)  # before the extensions read their settings
    app.connect("html-page-context", add_actions)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", rewrite_pages, priority=600)
    app.connect("build-finished", finish_pages, priority=850)  # after what still changes the pictures
    return {"parallel_read_safe": True, "parallel_write_safe": True}
