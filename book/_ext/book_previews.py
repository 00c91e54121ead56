"""Lay into each page what its links to other pages lead to, so that a link can show it.

A page opened from the disk may not read another one. So a copy of each equation, figure, citation and term of another
page that a page links to stands in its ``<template>``, where it costs nothing until site.js shows it. What is on the
page itself needs no copy.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from sphinx.application import Sphinx

LINK = re.compile(r'<a class="[^"]*\binternal\b[^"]*" href="([\w.-]+\.html)#([^"]+)"')
PREVIEWED = re.compile(r'<figure\b|<dt\b|<div[^>]* class="(?:math|citation)\b|<div class="(?:math|citation)\b')
# An id stands once on a page; a permalink leads nowhere from a copy.
NOT_COPIED = re.compile(r' id="[^"]*"|<a class="headerlink".*?</a>', re.S)


def element(page: str, name: str) -> str:
    """The HTML of what has this id and can be previewed, a term with its meaning; nothing for anything else."""
    start = re.search(rf'<(\w+)\b[^>]* id="{re.escape(name)}"[^>]*>', page)
    if not start or not PREVIEWED.match(start[0]):
        return ""
    end = end_of(page, start.start(), start[1])
    if start[1] == "dt":
        end = end_of(page, page.index("<dd", end), "dd")
    return page[start.start() : end]


def end_of(page: str, start: int, tag: str) -> int:
    depth = 0
    for found in re.compile(rf"<(/?){tag}\b").finditer(page, start):
        depth += -1 if found[1] else 1
        if not depth:
            return page.index(">", found.end()) + 1
    raise ValueError(f"<{tag}> is not closed: {page[start : start + 80]}")


def previews(page: str, others: dict[str, str]) -> Iterator[str]:
    """Yield a copy of each thing of ``others``, pages by their name, that this page links to."""
    article = page[page.find("<article") : page.find("</article>")]
    for name, target in dict.fromkeys(LINK.findall(article)):
        copy = NOT_COPIED.sub("", element(others.get(name, ""), unquote(target)))
        if copy and ('class="katex"' not in copy or "katex.min.css" in page):
            yield f'<div data-of="{html.escape(f"{name}#{unquote(target)}")}">{copy}</div>'


def add_previews(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    files = list(Path(app.outdir, app.config.root_doc).parent.glob("*.html"))
    pages = {file.name: file.read_text(encoding="utf-8") for file in files}
    for file in files:
        copies = "\n".join(previews(pages[file.name], pages))
        if copies and 'id="previews"' not in pages[file.name]:
            template = f'</article>\n<template id="previews">\n{copies}\n</template>'
            file.write_text(pages[file.name].replace("</article>", template, 1), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", add_previews, priority=700)  # after the pages are rewritten, before their pictures
    return {"parallel_read_safe": True, "parallel_write_safe": True}
