"""Make one PDF of the book, to read on paper or away from a browser: the built pages, joined and printed by Chromium.

    python tools/make_pdf.py                          # after `make book`; `make pdf` does both
    python tools/make_pdf.py --pages book/01_why book/glossary --out few.pdf

What only works on a screen is left out, and so are the code behind figures and the reference of the package. Solutions
move to the end of their chapter, so that they are not read before the exercise is tried. The look is tools/pdf.css.
"""

from __future__ import annotations

import argparse
import copy
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag

import yaml
from bs4 import BeautifulSoup, Tag
from make_zip import BUILD, ROOT, BookError, committed, pages_of
from sphinx_external_toc.parsing import parse_toc_yaml

from bnbook import __version__

OUT = BUILD / "batch-normalization.pdf"
LEFT_OUT = re.compile(r"book/api(_\w+)?")  # a reference to search in, not to read
# In every chapter; the contents name them no more than once.
REPEATED = {"Before you start", "Remember", "Exercises", "Further reading", "Solutions"}
SHORT_CODE = 10  # lines that stay on one page
CHROMIUMS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
FLAGS = (
    "--headless",
    "--no-sandbox",  # which needs rights that containers do not give; the page is ours, and loads nothing from outside
    "--disable-gpu",
    "--font-render-hinting=none",  # else lines break at other words on paper than where fit() measures them
    "--no-pdf-header-footer",
    "--generate-pdf-document-outline",
)
CSS_URL = re.compile(r"""url\(\s*["']?(?!data:|#)([^"'()?#]+)[^)]*\)""")
# A formula begins with its MathML, which Chromium does not print; its TeX stands at the end of that.
FORMULA = re.compile(r'<span class="katex"><span class="katex-mathml">.*?<annotation[^>]*>([^<]*)<.*?</span>')
SPAN = re.compile("<span|</span>")
PLACE = re.compile("⟦([0-9]+)⟧")
# What scripts need or make, and marks to click at: buttons, editors, live figures (their pictures stay).
ON_SCREEN = "script, style, template, button, input, textarea, select, .headerlink, .toctree-wrapper, .live"
FIGURE_CODE = ".tag_hide-input > details"
CHECKS = ".tag_hide-cell:not(.tag_solution)"


class Part(NamedTuple):
    caption: str
    documents: list[str]


def parts_of_toc(toc: Path) -> list[Part]:
    """Return the parts of the book in their order, each with the names of its pages."""
    root = parse_toc_yaml(toc).root
    parts = [Part("", [root.docname]), *(Part(t.caption or "", [str(i) for i in t.items]) for t in root.subtrees)]
    return [Part(caption, [d for d in documents if not LEFT_OUT.fullmatch(d)]) for caption, documents in parts]


def find_chromium() -> str:
    """Return the program that prints; what BNBOOK_CHROMIUM names, or else the first that is there."""
    named = os.environ.get("BNBOOK_CHROMIUM")
    if named and not shutil.which(named):
        raise BookError(f"BNBOOK_CHROMIUM={named} is no program that can be run")
    for name in [named] if named else CHROMIUMS:
        if path := shutil.which(name):
            return path
    raise BookError(
        "the PDF is printed by Chromium or Chrome, and neither was found: install the package chromium "
        "(apt install chromium, brew install --cask chromium), or name one, as in make pdf BNBOOK_CHROMIUM=/path/to/it"
    )


class Chapter:
    """One page of the site as a chapter of the printed book; its ids begin with its name, so that each is its own."""

    def __init__(self, site: Path, document: str) -> None:
        self.document, self.file = document, site / f"{document}.html"
        text = self.file.read_text(encoding="utf-8")
        self.formulas: list[str] = []
        self.soup = BeautifulSoup(self._lift(text[text.index("<article") : text.index("</article>")]), "html.parser")
        self.article = self.soup.article
        self.mark = document.replace("/", "-")
        self._leave_out()
        self._name_ids()
        self._move_solutions()
        for fold in self.article.select("details"):
            fold.name, fold.summary.name = "div", "p"
        for code in self.article.select("pre"):
            if code.get_text().count("\n") <= SHORT_CODE:
                code["class"] = "short"

    @property
    def title(self) -> Tag:
        return self.article.h1

    def sections(self) -> Iterable[tuple[str, Tag]]:
        """Yield the address and the heading of each section that is worth a place in the contents."""
        for heading in self.article.select("section > h2"):
            if heading.get_text(strip=True) not in REPEATED:
                yield heading.parent["id"], heading

    def html(self) -> str:
        return self.with_formulas(str(self.article))

    def with_formulas(self, text: str) -> str:
        return PLACE.sub(lambda place: self.formulas[int(place[1])], text)

    def _lift(self, text: str) -> str:
        """Take the drawn formulas out, most of a page, and leave their places, each of which says its TeX."""
        parts, end = [], 0
        for formula in FORMULA.finditer(text):
            depth = 0
            for span in SPAN.finditer(text, formula.end()):
                depth += 1 if span[0] == "<span" else -1
                if depth == 0:
                    break
            parts += [text[end : formula.start()], f'<span class="katex" role="img" aria-label="{formula[1]}">']
            parts.append(f"⟦{len(self.formulas)}⟧")
            self.formulas.append(text[formula.end() : span.end()].replace(' aria-hidden="true"', "", 1))
            end = span.end()
        return "".join([*parts, text[end:]])

    def _leave_out(self) -> None:
        for selector in (FIGURE_CODE, CHECKS, ON_SCREEN):
            for tag in self.article.select(selector):
                if not tag.decomposed:  # with one that it is in
                    _remove(tag)

    def _name_ids(self) -> None:
        for tag in self.article.select("[id]"):
            if not tag.find_parent("svg"):  # whose parts name each other
                tag["id"] = f"{self.mark}--{tag['id']}"
        self.article["id"] = self.mark

    def _move_solutions(self) -> None:
        """Put the solutions behind everything else, each linked with its exercise in both directions."""
        exercise, section = None, self.soup.new_tag("section", id=f"{self.mark}--solutions")
        section.append(self.soup.new_tag("h2", string="Solutions"))
        for tag in self.article.select("div.exercise, .tag_solution"):
            if "exercise" in tag["class"]:
                exercise = tag
                continue
            address = f"{exercise['id']}--solution"
            to_solution = self.soup.new_tag("p", attrs={"class": "to-solution"})
            to_solution.append(self.soup.new_tag("a", href=f"#{address}", string="Solution"))
            exercise.append(to_solution)
            heading = self.soup.new_tag("h3", id=address)
            back = self.soup.new_tag("a", href=f"#{exercise['id']}")
            back.extend(copy.copy(exercise.select_one(".admonition-title")).contents)
            heading.append(back)
            tag.details.summary.decompose()
            tag.details.unwrap()
            section.extend([heading, tag.extract()])
        if exercise:
            self.article.append(section)


def _remove(tag: Tag) -> None:
    """Remove a tag, and the boxes in which it was alone."""
    box = tag.parent
    tag.decompose()
    while box.name == "div" and not box.find(True) and not box.get_text(strip=True):
        box, empty = box.parent, box
        empty.decompose()


def mend_links(chapters: list[Chapter]) -> None:
    """Make addresses those of the joined page: a link to what is not in it becomes plain text."""
    marks = {chapter.file.resolve(): chapter.mark for chapter in chapters}
    ids = {tag["id"] for chapter in chapters for tag in [chapter.article, *chapter.article.select("[id]")]}
    for chapter in chapters:
        for picture in chapter.article.select("img[src]"):
            if not re.match(r"[a-z]+:", picture["src"]):
                picture["src"] = (chapter.file.parent / unquote(picture["src"])).resolve().as_uri()
        for link in chapter.article.select("a[href]"):
            address, fragment = urldefrag(link["href"])
            if re.match(r"[a-z]+:", address) or fragment in ids:
                continue
            mark = marks.get((chapter.file.parent / unquote(address)).resolve()) if address else chapter.mark
            target = f"{mark}--{unquote(fragment)}" if fragment else mark
            if target in ids:
                link["href"] = f"#{target}"
            else:
                link.name = "span"
                del link["href"]


def styles_of(chapters: Iterable[Chapter]) -> str:
    """Return the pages' style sheets, without what they say of printing: a page printed alone is something else."""
    sheets = {}
    for chapter in chapters:
        head = chapter.file.read_text(encoding="utf-8").split("</head>")[0]
        for tag in re.findall(r"<link\b[^>]*>", head):
            href = re.search(r'href="([^"?#]+)', tag)
            if 'rel="stylesheet"' in tag and href:
                sheets[(chapter.file.parent / unquote(href[1])).resolve()] = None
    return "\n".join(_style(sheet) for sheet in sheets)


def _style(sheet: Path) -> str:
    css = sheet.read_text(encoding="utf-8")
    css = re.sub(r'@import "([^"]+)";', lambda other: _style(sheet.parent / other[1]), css)
    css = re.sub(r"@media print\b", "@media not all", css)
    return CSS_URL.sub(lambda url: f'url("{(sheet.parent / unquote(url[1])).resolve().as_uri()}")', css)


def title_page(config: dict) -> str:
    commit = committed()
    date = f"<p>{commit:%-d %B %Y}</p>" if commit else ""
    return f"""<header id="title">
<p class="title">{html.escape(config["title"])}</p>
<p class="subtitle">An executable book</p>
<p class="author">{html.escape(config["author"])}</p>
<div class="imprint"><p>Version {__version__}</p>{date}<p>Code, text and figures under the MIT licence</p></div>
</header>"""


def contents(parts: list[Part], chapters: dict[str, Chapter], pages: dict[str, int]) -> str:
    lines = []
    for part in parts:
        if part.caption and any(d in chapters for d in part.documents):
            lines.append(f'<p class="part">{html.escape(part.caption)}</p>')
        for chapter in (chapters[d] for d in part.documents if d in chapters):
            sections = " · ".join(f'<a href="#{address}">{_words(chapter, h)}</a>' for address, h in chapter.sections())
            title = f'{_words(chapter, chapter.title)}<span class="page">{pages[chapter.mark]}</span>'
            lines.append(f'<div class="entry"><p class="chapter"><a href="#{chapter.mark}">{title}</a></p>')
            lines.append(f"<p>{sections}</p></div>")
    return f'<nav id="contents"><h1>Contents</h1>{"".join(lines)}</nav>'


def _words(chapter: Chapter, heading: Tag) -> str:
    """Return what stands in a heading, without links of its own."""
    words = copy.copy(heading)
    for link in words.select("a"):
        link.unwrap()
    return chapter.with_formulas(words.decode_contents())


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def chapters_of(site: Path, parts: list[Part], only: Iterable[str] = ()) -> dict[str, Chapter]:
    """Return the chapters of the PDF by their names, in their order, or ``only`` some of them."""
    documents = [document for part in parts for document in part.documents]
    if unknown := [name for name in only if name not in documents]:
        raise BookError(f"no page of the PDF: {', '.join(unknown)}; its pages are {', '.join(documents)}")
    documents = [d for d in documents if d in only] if only else documents
    chapters = {document: Chapter(site, document) for document in documents}
    mend_links(list(chapters.values()))
    return chapters


def joined(parts: list[Part], chapters: dict[str, Chapter], pages: dict[str, int]) -> str:
    """Return the chapters as one page of HTML; ``pages`` says where each begins."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    # The foot of a page names its chapter: each chapter has a kind of page of its own.
    feet = "".join(
        f'@page {mark} {{ @bottom-left {{ content: "{title}" }} }} #{mark} {{ page: {mark} }}\n'
        for mark, title in ((c.mark, c.title.get_text().replace('"', r"\"")) for c in chapters.values())
    )
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head><meta charset="utf-8"><title>{html.escape(config["title"])}</title>
<style>{styles_of(chapters.values())}</style>
<style>{_beside("pdf.css")}{feet}</style><script>{_beside("pdf.js")}</script></head>
<body><main class="bd-content">{title_page(config)}{contents(parts, chapters, pages)}
{"".join(chapter.html() for chapter in chapters.values())}</main></body></html>"""


def pages_in(pdf: bytes) -> dict[str, int]:
    """Return the number of the page on which each place stands that a link leads to.

    Chromium leaves these parts of a PDF uncompressed, and names a place as its page of HTML does.
    """
    nodes = dict(re.findall(rb"\n(\d+) 0 obj\n<<(/Type /Pages?\b.*?)>>\s+endobj", pdf, re.DOTALL))

    def leaves(node: bytes) -> Iterator[bytes]:
        kids = re.search(rb"/Kids \[([^\]]*)\]", nodes[node])
        if not kids:
            yield node
        for kid in re.findall(rb"(\d+) 0 R", kids[1]) if kids else ():
            yield from leaves(kid)

    root = re.search(rb"/Type /Catalog\b.*?/Pages (\d+) 0 R", pdf, re.DOTALL)
    numbers = {page: number for number, page in enumerate(leaves(root[1]), 1)}
    return {name.decode(): numbers[page] for name, page in re.findall(rb"/([\w.-]+) \[(\d+) 0 R /XYZ", pdf)}


def printed(chromium: str, page: Path) -> bytes:
    """Return a page of HTML as a PDF."""
    pdf, profile = page.with_suffix(".pdf"), page.with_name("profile")
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", f"--print-to-pdf={pdf}", page.as_uri()]
    try:
        said = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=3600)
    except subprocess.TimeoutExpired:
        raise BookError(f"{chromium} did not finish within an hour") from None
    if not pdf.is_file() or not pdf.read_bytes().startswith(b"%PDF"):
        raise BookError(f"{chromium} printed nothing (exit status {said.returncode}): {said.stderr[-2000:]}")
    return pdf.read_bytes()


def make_pdf(site: Path, out: Path, only: Iterable[str] = ()) -> None:
    """Print the built pages in ``site``, or ``only`` some of them, as one PDF."""
    chromium = find_chromium()
    pages_of(site)
    parts = parts_of_toc(ROOT / "_toc.yml")
    chapters = chapters_of(site, parts, only)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the PDF: a Chromium that is packed as a snap sees neither hidden folders nor /tmp.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="pdf-", ignore_cleanup_errors=True) as folder:
        page = Path(folder, "book.html")
        pages = {chapter.mark: 100 for chapter in chapters.values()}  # takes as much room as what comes
        for _ in range(2):  # the contents can say where chapters begin when they were printed once
            page.write_text(joined(parts, chapters, pages), encoding="utf-8")
            pdf = printed(chromium, page)
            pages = pages_in(pdf)
    unfinished = out.with_suffix(".part")
    unfinished.write_bytes(pdf)
    unfinished.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--pages", nargs="+", default=(), metavar="PAGE", help="only these, as in book/02_forward")
    arguments = parser.parse_args()
    make_pdf(BUILD / "html", arguments.out.resolve(), arguments.pages)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except BookError as error:
        sys.exit(f"make_pdf: {error}")
