"""What is taken along: the PDF that Chromium prints, and the zip of the pages. Of the book a part is printed."""

from __future__ import annotations

import functools
import io
import re
import shutil
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import book_check
import make_pdf
import make_zip
import pytest
from bs4 import BeautifulSoup, Tag
from make_pdf import Chapter
from make_zip import BookError
from playwright.sync_api import Browser
from pypdf import PdfReader

from tests.site.conftest import ROOT, Visit, open_page

pytestmark = pytest.mark.long(seconds=40)

PAGES = ("book/index", "book/02_forward", "book/glossary")
BODY = 14 * 0.75  # points: the size of the words in tools/pdf.css
WIDER_THAN_ITS_BOX = """() => [...document.querySelectorAll('article :not(.katex *)')]
    .filter(box => box.clientWidth && box.scrollWidth > box.clientWidth + 1)
    .map(box => `${box.tagName} ${box.className} ${box.textContent.slice(0, 60)}`)"""


@pytest.fixture(scope="module")
def pdf(site: Path, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> PdfReader:
    out = tmp_path_factory.mktemp("pdf") / "few pages.pdf"
    make_pdf.make_pdf(site, out, PAGES)
    assert [file.name for file in out.parent.iterdir()] == [out.name]
    return PdfReader(out)


@functools.cache
def pages_of(pdf: PdfReader) -> list[str]:
    """The words of each page, without white space. The foot comes first: number, then chapter."""
    return ["".join(page.extract_text().split()) for page in pdf.pages]


def outline(pdf: PdfReader, depth: int = 1) -> list[tuple[str, int]]:
    """The titles down to a depth, each with the page that it leads to."""

    def walk(entries: list, left: int) -> list[tuple[str, int]]:
        found = []
        for entry in entries:
            if not isinstance(entry, list):
                found.append((entry.title, pdf.get_destination_page_number(entry) + 1))
            elif left > 1:
                found += walk(entry, left - 1)
        return found

    return walk(pdf.outline, depth)


def article(site: Path, document: str) -> Tag:
    soup = BeautifulSoup((site / f"{document}.html").read_text(encoding="utf-8"), "html.parser").article
    for mark in soup.select(".headerlink"):
        mark.decompose()
    return soup


def links(pdf: PdfReader) -> list[dict]:
    found = [note.get_object() for page in pdf.pages for note in page.get("/Annots", [])]
    return [note for note in found if note["/Subtype"] == "/Link"]


def test_a_screen_reader_is_told_structure_language_and_formulas(pdf):
    root = pdf.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"] and root["/Lang"] == "en"
    assert pdf.metadata.title == "Batch Normalization"
    spoken = {
        thing.get("/Alt") for thing in map(pdf.get_object, range(1, len(pdf.xref[0]) + 1)) if isinstance(thing, dict)
    }
    assert r"\sigma^2" in spoken, "a formula says its TeX"


def test_the_outline_has_each_title_once_and_in_one_line(site, pdf):
    chapters = [article(site, document) for document in PAGES]
    assert [title for title, _ in outline(pdf)] == ["Contents", *(c.h1.get_text() for c in chapters)]
    sections = [h.get_text() for c in chapters for h in c.select("h2") if not h.select(".math")]
    inside = [title for title, _ in outline(pdf, depth=2)]
    assert len(sections) > 9 and [title for title in sections if inside.count(title) != sections.count(title)] == []
    assert inside.count("Solutions") == 1


def test_every_page_but_the_title_has_its_number_and_its_chapter(pdf):
    starts = {page: "".join(title.split()) for title, page in outline(pdf)}
    title, *pages = pages_of(pdf)
    assert title.startswith("BatchNormalization") and "Version" in title and "MIT" in title
    chapter = None
    for number, page in enumerate(pages, 2):
        chapter = starts.get(number, chapter)
        assert page.startswith(f"{number}{chapter}"), f"page {number} says {page[:40]}"


def test_the_contents_say_where_chapters_begin(pdf):
    for title, number in outline(pdf)[1:]:
        assert f"{''.join(title.split())}{number}" in pages_of(pdf)[1]


def test_every_link_leads_to_a_place_in_the_pdf_or_out_of_the_book(pdf):
    places, targets = pdf.named_destinations, Counter()
    for link in links(pdf):
        if "/A" in link:
            assert link["/A"]["/URI"].startswith("http"), link["/A"]["/URI"]
        else:
            targets[link["/Dest"].lstrip("/")] += 1
    assert [name for name in targets if f"/{name}" not in places and name not in places] == []
    for mark in ("book-index", "book-02_forward", "book-glossary"):
        assert targets[mark], f"nothing leads to {mark}, not even the contents"


def test_an_exercise_and_its_solution_lead_to_each_other(site, pdf):
    exercises = [f"{d.replace('/', '-')}--{e['id']}" for d in PAGES for e in article(site, d).select("div.exercise")]
    targets = Counter(link.get("/Dest", "").lstrip("/") for link in links(pdf))
    assert len(exercises) > 3
    assert [e for e in exercises if not (targets[e] and targets[f"{e}--solution"])] == []


def test_code_and_what_it_printed_are_there_and_solutions_come_last(site, pdf):
    page = article(site, PAGES[1])
    folded = page.select(".tag_hide-input > details pre, .tag_hide-cell:not(.tag_solution) pre")
    solutions = page.select(".tag_solution pre")
    shown = [code for code in page.select("pre") if code not in folded and code not in solutions]
    assert len(shown) > 20 and len(folded) > 3 and len(solutions) > 7
    pages = pages_of(pdf)
    assert [code.get_text() for code in shown if not is_printed(code, pages)] == []
    assert [code.get_text() for code in folded if is_printed(code, pages)] == []
    start = next(number for title, number in outline(pdf, depth=2) if title == "Solutions")
    assert [code.get_text() for code in solutions if not is_printed(code, pages[start - 1 :])] == []
    answers = [code for code in solutions if "def " in code.get_text()]
    assert [code.get_text() for code in answers if is_printed(code, pages[: start - 1])] == []


def is_printed(code: Tag, pages: list[str]) -> bool:
    """Whether code, or what it printed, stands whole on one page, or begins on one and goes on overleaf."""
    lines = ["".join(line.split()) for line in code.get_text().splitlines()]
    parts = [("".join(lines[:cut]), "".join(lines[cut:])) for cut in range(1, len(lines) + 1)]
    return any(head in page and rest in overleaf for page, overleaf in pairwise([*pages, ""]) for head, rest in parts)


def test_the_words_have_their_size(pdf):
    sizes = Counter()
    for page in pdf.pages[2:4]:
        page.extract_text(
            visitor_text=lambda words, cm, tm, font, size: sizes.update(
                {round(abs(size * tm[3] * cm[3]), 1): len(words)}
            )
        )
    assert abs(sizes.most_common(1)[0][0] - BODY) < 0.3, "Chromium makes all pages smaller where one thing is too wide"


def test_what_is_wide_breaks_and_is_not_cut_off(site, browser, tmp_path):
    """The chapters, and lines and tables of code that are wider than any of theirs."""
    parts = make_pdf.parts_of_toc(ROOT / "_toc.yml")
    chapters = make_pdf.chapters_of(site, parts, PAGES[:2])
    line = "a_name_without_end" * 20
    wide = BeautifulSoup(
        f"""<div class="cell"><div class="cell_input"><div class="highlight-ipython3"><div class="highlight"><pre>{line}
        </pre></div></div></div></div><div class="pst-scrollable-table-container"><table class="table"><tr><td>A</td>
        <td><code class="literal">{line}</code></td></tr></table></div>""",
        "html.parser",
    )
    chapters[PAGES[1]].article.append(wide)
    file, seen = tmp_path / "joined.html", Visit()
    file.write_text(make_pdf.joined(parts, chapters, Counter()), encoding="utf-8")
    page = open_page(browser, file, seen)
    found = page.evaluate(WIDER_THAN_ITS_BOX)
    page.context.close()
    assert seen.errors == [] and found == []


def test_a_figure_that_almost_fits_is_drawn_smaller(browser, tmp_path):
    """Lines that leave a fifth less than the figure needs; and some that leave half of it: then it stays as it is."""
    picture = "data:image/svg+xml," + quote('<svg xmlns="http://www.w3.org/2000/svg" width="560" height="300"/>')
    figure = f'<div class="cell"><figure><img alt="" src="{picture}"></figure></div>'
    style, script = ((ROOT / "tools" / name).read_text(encoding="utf-8") for name in ("pdf.css", "pdf.js"))
    chapters = "".join(
        f"<article><p style='height:{text}px;margin:0'>Text</p>{figure}</article>" for text in (690, 800)
    )
    page_of_html = f"<!DOCTYPE html><style>{style}</style><script>{script}</script><main><nav></nav>{chapters}</main>"
    (tmp_path / "page.html").write_text(page_of_html, encoding="utf-8")
    page = open_page(browser, tmp_path / "page.html", Visit())
    almost, half = page.evaluate("[...document.images].map(image => image.getBoundingClientRect().height)")
    page.context.close()
    assert 210 <= almost < 290 and half == 300


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_the_cheat_sheet_is_one_sheet(site, browser, paper):
    page = open_page(browser, site / "book/cheatsheet.html", Visit())
    sheets = PdfReader(io.BytesIO(page.pdf(format=paper))).pages
    page.context.close()
    assert len(sheets) == 1
    assert "Cheatsheet" in (words := "".join(sheets[0].extract_text().split())) and "Choose" in words


def test_the_cheat_sheet_is_one_page_of_the_book(site, tmp_path):
    make_pdf.make_pdf(site, tmp_path / "sheet.pdf", ["book/cheatsheet"])
    _, _, *sheets = pages_of(PdfReader(tmp_path / "sheet.pdf"))
    assert len(sheets) == 1 and "Choose" in sheets[0]


def test_the_reference_of_the_package_is_no_chapter():
    parts = make_pdf.parts_of_toc(ROOT / "_toc.yml")
    documents = [document for part in parts for document in part.documents]
    assert documents == [d for d in book_check.documents_of_toc(ROOT / "_toc.yml") if not d.startswith("book/api")]


def test_what_needs_a_screen_is_left_out_and_its_picture_stays(tmp_path):
    (tmp_path / "page.html").write_text(
        """<article><h1>A page<a class="headerlink" href="#a">#</a></h1>
        <p id="a">Words, and <a href="#gone">more</a>.</p>
        <div class="cell_output"><figure id="f"><img src="still.png" alt="Still"></figure>
        <div class="output text_html"><live-forward class="live"><script>1</script></live-forward></div></div>
        <details><summary>A fold</summary><p id="in">inside, <a href="page.html#in">here</a></p></details>
        <div class="practice"><textarea>x</textarea><button>Run</button></div><script>draw()</script></article>""",
        encoding="utf-8",
    )
    chapter = Chapter(tmp_path, "page")
    make_pdf.mend_links([chapter])
    shown = chapter.article
    assert shown.find_all(["script", "button", "textarea", "details", "live-forward"]) == []
    assert shown.select("div") and not shown.select(".text_html, .practice, .headerlink")
    assert shown.img["src"] == (tmp_path / "still.png").as_uri()
    assert [link["href"] for link in shown.select("a")] == ["#page--in"]
    assert "more" in shown.get_text() and "A fold" in shown.get_text()


def test_what_is_missing_is_said_in_one_line(tmp_path, site, monkeypatch):
    with pytest.raises(BookError, match=r"no page of the PDF: book/api; its pages are book/index, book/00_warmup"):
        make_pdf.chapters_of(site, make_pdf.parts_of_toc(ROOT / "_toc.yml"), ["book/02_forward", "book/api"])
    for make in (make_zip.make_zip, make_pdf.make_pdf):
        monkeypatch.setattr(make_pdf, "find_chromium", lambda: "chromium")
        with pytest.raises(BookError, match=r"the pages are not built .*: make book$"):
            make(tmp_path / "nothing", tmp_path / "out" / "book")
        assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(make_pdf, "CHROMIUMS", ("no-such-browser",))
    monkeypatch.delenv("BNBOOK_CHROMIUM", raising=False)
    with pytest.raises(BookError, match=r"install the package chromium .* BNBOOK_CHROMIUM="):
        make_pdf.find_chromium()
    monkeypatch.setenv("BNBOOK_CHROMIUM", "/no/such/browser")
    with pytest.raises(BookError, match=r"^BNBOOK_CHROMIUM=/no/such/browser is no program"):
        make_pdf.find_chromium()


@pytest.fixture(scope="module")
def archive(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("zip") / "book.zip"
    make_zip.make_zip(site, out)
    return out


@pytest.fixture(scope="module")
def unpacked(archive: Path) -> Path:
    folder = archive.parent / "Bücher zum Lesen 书 #1"
    shutil.unpack_archive(archive, folder)
    assert [path.name for path in folder.iterdir()] == ["batch-normalization"]
    return folder / "batch-normalization"


def test_the_zip_is_small_and_the_same_for_the_same_pages(site, archive, tmp_path):
    assert archive.stat().st_size <= 10_000_000
    copy = shutil.copytree(site, tmp_path / "copy", copy_function=shutil.copyfile)  # with other times and modes
    make_zip.make_zip(copy, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_the_zip_reads_at_any_place(site, unpacked):
    assert book_check.problems_of_site(unpacked, book_check.documents_of_toc(ROOT / "_toc.yml")) == []
    broken, downloads = [], 0
    for page in unpacked.glob("**/*.html"):
        for href in re.findall(r'<a\b[^>]*?\shref="([^"#]+)', page.read_text(encoding="utf-8")):
            if not urlsplit(href).scheme:
                downloads += "_sources/" in href
                if not (page.parent / unquote(href.split("?")[0])).exists():
                    broken.append(f"{page.relative_to(unpacked)}: {href}")
    chapters = {notebook.stem for notebook in (ROOT / "book").glob("*.ipynb")} - {"index"}
    assert broken == [] and downloads == len(chapters)


def test_the_zip_opens_in_a_browser(browser, unpacked):
    seen = Visit()
    page = open_page(browser, unpacked / "index.html", seen)
    page.wait_for_url("**/book/index.html")
    page.wait_for_load_state("networkidle")
    page.goto((unpacked / "search.html").as_uri() + "?q=variance")
    page.wait_for_selector("#search-results li")
    page.wait_for_load_state("networkidle")
    page.context.close()
    assert seen.errors == [] and {urlsplit(url).scheme for url in seen.requests} <= {"file", "data"}


def test_a_zip_that_is_too_large_is_not_made_in_silence(site, tmp_path, monkeypatch):
    monkeypatch.setattr(make_zip, "LIMIT", 1_000)
    monkeypatch.setattr(make_zip, "pages_of", lambda site: [site / "index.html", site / "search.html"])
    with pytest.raises(BookError, match=r"more than the 0 MB that it may have"):
        make_zip.make_zip(site, tmp_path / "book.zip")
    assert zipfile.is_zipfile(tmp_path / "book.zip")
