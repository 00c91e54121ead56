"""Look at the finished pages, and fail the build where a reader would be left with less than the book.

Sphinx warns about what it is given; this looks at what came out: that every page is there, loads nothing from outside,
finds the files it loads, shows no raw TeX, and describes its figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx_external_toc.parsing import parse_toc_yaml

LOADING_ATTRIBUTES = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
}
NAVIGATION = {"index", "search", "next", "prev", "canonical", "author", "copyright", "top", "up"}
NOT_PROSE = {"script", "style", "pre", "code", "annotation", "textarea", "template"}
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
RAW_TEX = re.compile(r"\$\$|\\\(|\\\[|\\(?:begin|end|frac|hat|sqrt|mathbf)\b|\$[^$\n]*[\\^_][^$\n]*\$")
CSS_URL = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")
# Addresses that Jupyter Book or a template fills in where none is given.
PLACEHOLDERS = ("executablebooks/jupyter-book", "OWNER/")

logger = logging.getLogger(__name__)


class _Page(HTMLParser):
    """Collect the problems of one page."""

    def __init__(self, file: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.file = file
        self.problems: list[str] = []
        self.open: list[str] = []
        self.has_maths = self.has_maths_style = False
        self.feed(file.read_text(encoding="utf-8"))
        if self.has_maths and not self.has_maths_style:
            self.problems.append("has formulas but does not load KaTeX's style sheet (is one in a chapter's title?)")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        classes = values.get("class", "").split()
        if tag not in VOID:
            self.open.append(tag)
        if "katex" in classes:
            self.has_maths = True
        if "katex-error" in classes:
            self.problems.append("shows a formula that KaTeX could not read")
        if tag == "img" and (not values.get("alt", "").strip() or "_images/" in values["alt"]):
            self.problems.append(f"has a figure without alternative text: {values.get('src', '')[:80]}")
        if tag == "a" and any(placeholder in values.get("href", "") for placeholder in PLACEHOLDERS):
            self.problems.append(f"links to an invented address: {values['href']}")
        if tag == "link" and NAVIGATION & set(values.get("rel", "").split()):
            return
        for attribute in LOADING_ATTRIBUTES.get(tag, ()):
            addresses = values.get(attribute, "")
            for address in addresses.split(", ") if attribute == "srcset" else [addresses]:
                self.problems += problems_of_address(address.strip().split(" ")[0], self.file)
        if tag == "link" and "katex" in values.get("href", ""):
            self.has_maths_style = True
        self.problems += problems_of_style(values.get("style", ""), self.file)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.problems += problems_of_style(data, self.file)
        if not NOT_PROSE & set(self.open):
            tex = RAW_TEX.search(data)
            if tex:
                self.problems.append(f"shows raw TeX: {data.strip()[max(0, tex.start() - 20) :][:60]}")


def problems_of_address(address: str, file: Path) -> Iterator[str]:
    """Yield what is wrong with an address that ``file`` loads something from."""
    parts = urlsplit(address)
    if not address or parts.scheme == "data":
        return
    if parts.scheme or parts.netloc:
        yield f"loads from outside: {address}"
    elif parts.path and not (file.parent / unquote(parts.path)).exists():
        yield f"loads a file that is not there: {address}"


def problems_of_style(css: str, file: Path) -> Iterator[str]:
    for url, imported in CSS_URL.findall(css):
        yield from problems_of_address(url or imported, file)


def problems_of_site(site: Path, documents: Iterable[str]) -> list[str]:
    """Return what is wrong with the built pages in ``site``; ``documents`` are the pages of the table of contents."""
    problems = [f"{name}: was not built" for name in ("index.html", "search.html") if not (site / name).is_file()]
    problems += [f"{name}.html: was not built" for name in documents if not (site / f"{name}.html").is_file()]
    for file in sorted(site.rglob("*.html")):
        if "_static" not in file.relative_to(site).parts:
            found = _Page(file).problems
            problems += [f"{file.relative_to(site)}: {problem}" for problem in dict.fromkeys(found)]
    for file in sorted(site.rglob("*.css")):
        found = problems_of_style(file.read_text(encoding="utf-8"), file)
        problems += [f"{file.relative_to(site)}: {problem}" for problem in dict.fromkeys(found)]
    return problems


def documents_of_toc(toc: Path) -> list[str]:
    """Return the names, without suffix, of the pages that a ``_toc.yml`` lists."""
    return list(parse_toc_yaml(toc))


def check(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    problems = problems_of_site(Path(app.outdir), documents_of_toc(Path(app.srcdir, app.config.external_toc_path)))
    for problem in problems:
        logger.warning("built page %s", problem, type="book_check")
    if problems:
        app.statuscode = 1  # these warnings come too late to be counted


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", check, priority=900)  # after what still changes the pages
    return {"parallel_read_safe": True, "parallel_write_safe": True}
