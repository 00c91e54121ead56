"""The words of all pages in one file, from which the page of search results takes the passages that it shows.

Sphinx fetches every page that was found, to show a passage of it. A page opened from the disk may not fetch another
one, and 200 kB of formulas and pictures are a lot for two lines. So the first result loads ``search_texts.js``, and
site.js answers from it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from book_previews import end_of
from sphinx.application import Sphinx

NAME = "search_texts.js"
FORMULA = re.compile(r'<span class="katex">')
HALF = re.compile(r"<mfrac>(<mn>\d+</mn>)")  # would be read as 12
SPOKEN = re.compile(r"<semantics>(.*?)<annotation", re.S)  # a formula as text; its TeX and what is drawn say it again
NOT_READ = re.compile(
    r'<(script|style|template|svg|noscript)\b.*?</\1>|<a class="headerlink".*?</a>|<div class="actions".*?</div>\s*'
    r"</details>.*?</div>",
    re.S,
)
TAG = re.compile(r"<(?!section|/section)[^>]*>")
KEPT = re.compile(r'<section\b[^>]*?( id="[^"]*")[^>]*>')  # a result may lie within a section


def words(page: str) -> str:
    """The text of a page's article, in its sections; HTML without any other tag."""
    article = page[page.find("<article") : page.find("</article>")]
    parts, last = [], 0
    for found in FORMULA.finditer(article):
        if found.start() >= last:
            end = end_of(article, found.start(), "span")
            spoken = SPOKEN.search(article, found.start(), end)
            parts += [article[last : found.start()], HALF.sub(r"\1/", spoken[1]) if spoken else ""]
            last = end
    text = TAG.sub("", NOT_READ.sub("", "".join([*parts, article[last:]])))
    return re.sub(r"\s+", " ", KEPT.sub(r"<section\1>", text)).strip()


def write_texts(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    out = Path(app.outdir)
    texts = {name: words((out / f"{name}.html").read_text(encoding="utf-8")) for name in sorted(app.env.found_docs)}
    script = f"globalThis.SEARCH_TEXTS = {json.dumps(texts, ensure_ascii=False)};\n"
    (out / "_static" / NAME).write_text(script, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", write_texts, priority=640)  # before the pages get what belongs to other pages
    return {"parallel_read_safe": True, "parallel_write_safe": True}
