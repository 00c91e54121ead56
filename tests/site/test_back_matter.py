"""What surrounds the chapters: the landing page, the back matter, and what every page says of itself."""

from __future__ import annotations

import ast
import functools
import http.server
import importlib
import importlib.util
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import book_check
import book_meta
import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document
from playwright.sync_api import Browser
from pybtex.database import parse_file

import bnbook
from tests.site.conftest import ROOT, Visit, open_page
from tests.site.test_check import build

pytestmark = pytest.mark.long(seconds=30)

DOCUMENTS = book_check.documents_of_toc(ROOT / "_toc.yml")
API = [document for document in DOCUMENTS if document.startswith("book/api_")]


def parsed(file: Path, begin: str = "<html", end: str = "</html>") -> BeautifulSoup:
    """A page, or a part of one: to parse all of a chapter takes a second."""
    text = file.read_text(encoding="utf-8")
    return BeautifulSoup(text[text.index(begin) : text.rindex(end)], "html.parser")


def head(file: Path) -> BeautifulSoup:
    return parsed(file, "<head", "</head>")


def meta(page: BeautifulSoup, name: str) -> list[str]:
    return [tag["content"] for tag in page.find_all("meta") if name in (tag.get("name"), tag.get("property"))]


# --- what a page says of itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", ["index", "search", "genindex", *DOCUMENTS])
def test_a_page_says_what_it_is(site: Path, document: str) -> None:
    page = head(site / f"{document}.html")
    (about,) = meta(page, "description")
    assert 30 <= len(about) <= book_meta.LONGEST
    assert not re.search(r"[\\$]|You will learn|  ", about)
    assert meta(page, "og:description") == [about]
    assert meta(page, "author") == ["the bnbook contributors"]
    assert len(meta(page, "viewport")) == 1
    (picture,) = meta(page, "og:image")
    assert (site / document).parent.joinpath(picture).read_bytes() == book_meta.PICTURE.read_bytes()
    (title,) = page.select("title")
    assert title.get_text().count("Batch Normalization") == 1
    # The book has no address yet, and invents none.
    assert meta(page, "og:url") == [] and page.select("link[rel=canonical]") == []


def test_no_two_pages_describe_themselves_alike(site: Path) -> None:
    about = {document: meta(head(site / f"{document}.html"), "description")[0] for document in DOCUMENTS}
    assert len(set(about.values())) == len(about)


def page_of(*paragraphs: nodes.paragraph) -> nodes.document:
    document = new_document("page")
    document += paragraphs
    return document


def test_a_description_is_what_one_learns_without_its_formulas() -> None:
    do = nodes.paragraph("", "You will do: much.")
    learn = nodes.paragraph("", "", nodes.strong("", "You will learn"), nodes.Text(": what "), nodes.math("", "\\mu"))
    learn += nodes.Text(" is, and more.")
    assert book_meta.description(page_of(do, learn)) == "What is, and more."
    assert book_meta.description(page_of(do)) == "You will do: much."
    long = book_meta.description(page_of(nodes.paragraph("", "word " * 100)))
    assert long.endswith("word…") and len(long) <= book_meta.LONGEST
    assert book_meta.description(page_of()) == ""


def test_addresses_are_written_where_the_book_has_one(tmp_path: Path) -> None:
    before = "extensions += ['book_meta']\nhtml_theme = 'sphinx_book_theme'\nhtml_title = 'BN'\nauthor = 'A'\n"
    before += "html_baseurl = 'https://book.example/bn'"
    done, out = build(tmp_path, before, index="# Book\n\nThe first words.\n")
    assert done.returncode == 0, done.stderr
    page = head(out / "index.html")
    assert meta(page, "og:image") == ["https://book.example/bn/_static/xray.png"]
    assert len(meta(page, "og:url")) == 1 and meta(page, "og:url")[0].startswith("https://book.example/bn")
    assert [link["href"] for link in page.select("link[rel=canonical]")] == meta(page, "og:url")
    assert 'href="https://book.example/bn/index.html"' in (out / "404.html").read_text(encoding="utf-8")


def test_the_footer_has_version_and_licence(site: Path) -> None:
    for document in DOCUMENTS:
        footer = parsed(site / f"{document}.html", '<footer class="bd-footer-content"', "</body>")
        assert f"Version {bnbook.__version__}" in footer.get_text()
        assert footer.get_text().count("the bnbook contributors") == 1 and "By " not in footer.get_text()
        licence = (site / document).parent / footer.find("a", string="MIT licence")["href"]
        assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_sidebar_begins_with_start_here(site: Path) -> None:
    sidebar = parsed(site / "book/02_forward.html", '<div id="pst-primary-sidebar"', "<article")
    assert sidebar.select_one("nav.bd-docs-nav a").get_text().strip() == "Start here"
    assert sidebar.select_one("#pst-primary-sidebar").get_text().count("Batch Normalization") == 1


@pytest.fixture(scope="module")
def served(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The pages below an address of their own, by a server that answers what it lacks with 404.html."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "bn").symlink_to(site)

    class Handler(http.server.SimpleHTTPRequestHandler):
        error_message_format = (site / "404.html").read_text(encoding="utf-8").replace("%", "%%")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/bn"
        server.shutdown()


@pytest.mark.parametrize(
    ("address", "script"),
    [("gone.html", True), ("book/gone.html", True), ("book/deep/er/gone.html", True), ("book/gone.html", False)],
)
def test_a_wrong_address_leads_back_to_the_book(served: str, browser: Browser, address: str, script: bool) -> None:
    page = browser.new_context(java_script_enabled=script).new_page()
    assert page.goto(f"{served}/{address}").status == 404
    hrefs = page.locator("a").evaluate_all("links => links.map(link => link.href)") if script else None
    assert hrefs is None or hrefs == [f"{served}/book/index.html", f"{served}/search.html"]
    page.locator("a").first.click()
    page.wait_for_url(f"{served}/book/index.html")
    page.context.close()


# --- the landing page -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_first_screen_says_what_it_is_and_where_to_start(
    site: Path, browser: Browser, width: int, height: int
) -> None:
    page = open_page(browser, site / "book/index.html", Visit(), width)
    page.set_viewport_size({"width": width, "height": height})
    for selector in ("article h1", "article h1 + p", "article .start a"):
        box = page.locator(selector).bounding_box()
        assert box and 0 <= box["y"] and box["y"] + box["height"] <= height, selector
    assert page.locator("article .start a").count() == 1
    figure = page.locator("article figure").first.bounding_box()
    assert figure and figure["y"] + 100 <= height
    page.context.close()


# --- exercises --------------------------------------------------------------------------------------------------------


def labels_in_notebooks() -> list[str]:
    labels = []
    for notebook in sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb")):
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                labels += re.findall(r"\{exercise\}.*\n:label: (\S+)", "".join(cell["source"]))
    return labels


def test_every_exercise_is_listed_and_can_be_linked_to(site: Path) -> None:
    article = parsed(site / "book/exercises.html").select_one("article")
    listed = [link["href"] for link in article.select("li a[href*='#ex-']")]
    assert [href.partition("#")[2] for href in listed] == labels_in_notebooks()
    assert sorted(link["href"] for link in article.select("table.exercise-table a")) == sorted(listed)
    for href in listed:
        name, _, label = href.partition("#")
        text = (site / "book" / name).read_text(encoding="utf-8")
        assert text.count(f' id="{label}"') == 1
        assert f'<a class="headerlink" href="#{label}" title="Link to this exercise">' in text
    first = article.select_one("li:has(a[href='04_backward.html#ex-ch04-center'])").get_text()
    assert re.fullmatch(r"4\.2 Centring alone\s+derive, level 1", first)


LIST = "# Exercises\n\n```{exercises} by-chapter\n```\n\n```{exercises} by-level\n```\n"
CHAPTER = """# 7 · Seven

```{exercise} A first one
:label: ex-one

*Derive · level 1.* Do it.
```
"""


def test_a_new_exercise_appears_in_the_list(tmp_path: Path) -> None:
    def listed(chapter: str) -> list[str]:
        index = "# Book\n\n```{toctree}\nlist\nseven\n```\n"
        done, out = build(
            tmp_path, "extensions += ['sphinx_exercise', 'book_exercises']", index=index, list=LIST, seven=chapter
        )
        assert done.returncode == 0, done.stderr
        return [link.get_text() for link in parsed(out / "list.html").select("[role=main] a[href*='#ex-']")]

    assert listed(CHAPTER) == ["7.1 A first one", "7.1"]
    second = CHAPTER[CHAPTER.index("```") :].replace("first", "second").replace("ex-one", "ex-two")
    assert listed(f"{CHAPTER}\n{second}") == ["7.1 A first one", "7.2 A second one", "7.1", "7.2"]


def test_an_exercise_without_a_level_fails_the_build(tmp_path: Path) -> None:
    chapter = CHAPTER.replace(" · level 1", "")
    index = "# Book\n\n```{toctree}\nlist\nseven\n```\n"
    before = "extensions += ['sphinx_exercise', 'book_exercises']"
    done, _ = build(tmp_path, before, index=index, list=LIST, seven=chapter)
    assert done.returncode != 0
    assert "ex-one" in done.stderr and "level" in done.stderr


# --- API --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", API)
def test_an_api_page_begins_with_an_import_that_works(site: Path, document: str) -> None:
    article = parsed(site / f"{document}.html").select_one("article")
    blocks = [block.get_text() for block in article.select("div.highlight-python")]
    assert "import" in blocks[0]
    assert article.select_one("div.highlight-python").sourceline < article.select_one("dt.sig").sourceline
    for line in [node for block in blocks for node in ast.walk(ast.parse(block))]:
        if isinstance(line, ast.ImportFrom):
            module = importlib.import_module(line.module)
            for name in line.names:
                there = hasattr(module, name.name) or importlib.util.find_spec(f"{line.module}.{name.name}")
                assert there, f"{line.module} has no {name.name}"


def test_the_index_of_the_api_has_a_line_for_each_page(site: Path) -> None:
    article = parsed(site / "book/api.html").select_one("article")
    assert [f"book/{link['href']}" for link in article.select("table a")] == [f"{document}.html" for document in API]


def test_what_is_public_is_documented_under_its_public_name(site: Path) -> None:
    for module, document in ((bnbook.functional, "book/api_functional"), (bnbook.nn, "book/api_nn")):
        ids = {tag["id"] for tag in parsed(site / f"{document}.html").select("dt.sig[id]")}
        assert [name for name in module.__all__ if f"{module.__name__}.{name}" not in ids] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_no_signature_and_no_formula_of_batch_norm_is_clipped(site: Path, browser: Browser, width: int) -> None:
    page = open_page(browser, site / "book/api_functional.html", Visit(), width)
    assert page.locator("dl:has(> dt[id='bnbook.functional.batch_norm']) .equation").count() == 2
    clipped = page.evaluate(
        """() => [...document.querySelectorAll("dt.sig, dl:has(> [id='bnbook.functional.batch_norm']) .equation")]
        .filter(box => box.scrollWidth > box.clientWidth).map(box => box.innerText)"""
    )
    assert clipped == []
    page.context.close()


# --- glossary, search, conventions ------------------------------------------------------------------------------------


def test_search_finds_other_names_of_a_term(site: Path, browser: Browser) -> None:
    page = open_page(browser, site / "search.html", Visit())
    for word in ("SyncBN", "SyncBatchNorm", "normalisation", "warmup"):
        page.goto((site / "search.html").as_uri() + f"?q={word}")
        page.wait_for_function("document.querySelector('.search-summary')?.textContent.includes('found')")
        assert any("Glossary" in text for text in page.locator("#search-results li").all_inner_texts()), word
    page.context.close()


def test_the_conventions_begin_with_one_table(site: Path) -> None:
    article = parsed(site / "book/conventions.html").select_one("article")
    head, *rows = article.select_one("table").select("tr")
    frameworks = [cell.get_text().strip() for cell in head.select("th")]
    assert {"PyTorch", "Keras 3", "tf.keras 2", "Flax", "ONNX"} <= set(frameworks)
    assert len(rows) >= 9
    assert all(cell.get_text().strip() not in ("", "–") for row in rows for cell in row.select("td"))
    assert article.select_one("table").sourceline < article.select("h2")[0].sourceline


def test_no_two_sources_are_cited_alike() -> None:
    """Names and year are all that a page shows of a source; those of one year have a letter behind it."""
    entries = parse_file(str(ROOT / "book" / "references.bib")).entries
    cited = Counter()
    for entry in entries.values():
        names = [" ".join(person.last_names) for person in entry.persons["author"]]
        cited[names[0] if len(names) > 2 else " and ".join(names), entry.fields["year"]] += 1
    assert len(entries) > 50 and [alike for alike, count in cited.items() if count > 1] == []
