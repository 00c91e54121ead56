"""The built pages in a browser, opened from the disk as a reader without a network opens them."""

from __future__ import annotations

import functools
import gzip
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import book_check
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page

from tests.site.conftest import ROOT, SETTLE, Visit, open_page, violations

pytestmark = pytest.mark.long(seconds=150)

DOCUMENTS = [*book_check.documents_of_toc(ROOT / "_toc.yml"), "search", "genindex"]
WINDOWS = ((1280, "light"), (390, "dark"))  # a desk and a phone
WEIGHT_LIMIT = 450 * 1024
UNFOLD = "document.querySelectorAll('article details').forEach(box => box.open = true)"


def windows(document: str) -> tuple[tuple[int, str], ...]:
    """What autodoc writes looks alike on every page of the API: one of them is seen on the desk as well."""
    alike = document.startswith("book/api_") and document != "book/api_functional"
    return WINDOWS[1:] if alike else WINDOWS


@pytest.fixture(scope="module")
def visit(site: Path, browser: Browser) -> Callable[[str], Visit]:
    @functools.cache
    def visit(document: str) -> Visit:
        seen = Visit()
        for width, scheme in windows(document):
            page = open_page(browser, site / f"{document}.html", seen, width, color_scheme=scheme)
            assert page.evaluate("document.documentElement.dataset.theme") == scheme
            page.evaluate(UNFOLD)
            page.evaluate(SETTLE)
            excess = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if excess > 0:
                seen.wider_than_the_window.append(f"by {excess} px at {width} px")
            seen.violations += [f"{scheme}, {width} px: {violation}" for violation in violations(page)]
            seen.formulas = page.locator(".katex").count()
            page.context.close()
        return seen

    return visit


def file_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_loads_without_errors(visit: Callable[[str], Visit], document: str) -> None:
    assert visit(document).errors == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_asks_for_nothing_outside(visit: Callable[[str], Visit], document: str) -> None:
    assert [url for url in visit(document).requests if urlsplit(url).scheme not in ("file", "data")] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_is_light(visit: Callable[[str], Visit], document: str) -> None:
    files = {file_of(url) for url in visit(document).requests if url.startswith("file:")}
    weights = {file.name: len(gzip.compress(file.read_bytes(), 6)) for file in files}
    heaviest = sorted(weights.items(), key=lambda item: -item[1])[:5]
    assert sum(weights.values()) <= WEIGHT_LIMIT, f"compressed bytes of the heaviest files: {heaviest}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_fits_the_window(visit: Callable[[str], Visit], document: str) -> None:
    assert visit(document).wider_than_the_window == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_is_accessible(visit: Callable[[str], Visit], document: str) -> None:
    assert visit(document).violations == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_maths_files_are_loaded_only_for_maths(visit: Callable[[str], Visit], document: str) -> None:
    seen = visit(document)
    fonts = {file_of(url).name for url in seen.requests if "KaTeX" in url}
    assert bool(fonts) == (seen.formulas > 0)
    assert not any("FontAwesome" in url or "fa-solid" in url for url in seen.requests)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_maths_stands_in_the_page(site: Path, document: str) -> None:
    """Every formula is there as what is shown, and none as TeX between dollars, before any script runs."""
    page = BeautifulSoup((site / f"{document}.html").read_text(encoding="utf-8"), "html.parser")
    assert [formula.get_text() for formula in page.select("article .math") if not formula.select(".katex-html")] == []
    assert "$$" not in page.select_one("main").get_text()


@pytest.mark.parametrize("document", ["book/04_backward", "book/notation", "book/api_functional"])
def test_maths_reads_without_javascript(site: Path, browser: Browser, document: str) -> None:
    """Formulas are styled alike on all pages: these are one of each kind."""
    page = open_page(browser, site / f"{document}.html", Visit(), java_script_enabled=False)
    formulas = page.locator("article .math:visible").count()
    assert formulas
    assert page.locator("article .math:visible .katex-html:visible").count() == formulas
    assert "$$" not in page.locator("main").inner_text()
    page.context.close()


@pytest.mark.parametrize(("scheme", "pale"), [("light", "#999"), ("dark", "#555")])
@pytest.mark.parametrize("letters", [".highlight pre span.n", "article .katex-html .mathnormal"])
def test_pale_letters_among_others_are_noticed(
    site: Path, browser: Browser, scheme: str, pale: str, letters: str
) -> None:
    """The single letters of formulas too, of which axe alone does not judge."""
    page = open_page(browser, site / "book/02_forward.html", Visit(), color_scheme=scheme)
    page.evaluate(UNFOLD)
    page.evaluate(
        "([letters, pale]) => [...document.querySelectorAll(letters)].at(-1).style.color = pale", [letters, pale]
    )
    assert [violation.partition(":")[0] for violation in violations(page)] == ["color-contrast"]
    page.context.close()


def test_search_finds_a_word_and_shows_where(site: Path, browser: Browser) -> None:
    seen = Visit()
    page = open_page(browser, site / "book/index.html", seen, width=390)
    page.locator(".search-button:visible").first.click()
    page.locator("#pst-search-dialog input[type=search]").fill("normalization")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a").count() >= 1
    page.wait_for_function("document.querySelector('.search-summary')?.textContent.includes('found')")
    assert seen.errors == []
    passages = page.locator("#search-results li p.context")
    assert passages.count() >= 10 and all("normal" in text.lower() for text in passages.all_inner_texts())
    page.context.close()


def test_theme_switch_switches(site: Path, browser: Browser) -> None:
    page = open_page(browser, site / "book/index.html", Visit(), color_scheme="light")
    grounds = {}
    for _ in range(3):
        page.locator(".theme-switch-button:visible").first.click()
        theme = page.evaluate("document.documentElement.dataset.theme")
        grounds[theme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert set(grounds) == {"light", "dark"}
    assert grounds["light"] != grounds["dark"]
    page.context.close()


def until(condition: Callable[[], bool], page: Page) -> None:
    for _ in range(100):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it did not come to pass")


@pytest.mark.parametrize("width", [1280, 390])
def test_sidebar_toggles(site: Path, browser: Browser, width: int) -> None:
    page = open_page(browser, site / "book/index.html", Visit(), width=width)
    link = page.locator("nav.bd-docs-nav a").first

    def in_sight() -> bool:
        box = link.bounding_box()
        return link.is_visible() and box is not None and 0 <= box["x"] and box["x"] + box["width"] <= width + 1

    assert in_sight() == (width == 1280)
    page.locator(".primary-toggle:visible").first.click()
    until(lambda: in_sight() == (width == 390), page)  # the sidebar slides
    page.context.close()


def test_the_scoreboard_answers_on_its_first_screen_and_folds_the_rest(site: Path, browser: Browser) -> None:
    page = open_page(browser, site / "book/18_scoreboard.html", Visit())
    rows = page.locator("article table").first.locator("tbody tr")
    boxes = [box for row in rows.all() if (box := row.bounding_box())]
    assert sum(box["y"] + box["height"] <= 800 for box in boxes) >= 10  # of a screen of 1280x800
    assert re.search(r"[+−][\d.]+.*\[.*\]", rows.first.inner_text(), flags=re.S)  # an effect with its interval
    assert page.evaluate("document.documentElement.scrollHeight") <= 12_000
    fold = page.locator("article details:has(> summary)").filter(has_text="As said").first
    table, origin = fold.locator("table"), page.get_by_text("Origin, fair version").first
    assert not table.is_visible() and not origin.is_visible()
    fold.locator("summary").click()
    assert table.is_visible() and origin.is_visible()
    page.context.close()


def test_a_link_to_a_claim_of_the_scoreboard_opens_its_fold(site: Path, browser: Browser) -> None:
    address = site / "book/18_scoreboard.html"
    page = open_page(browser, address, Visit())
    folds = page.locator("article section:has(> h3) > .cell details:not([class])")
    link = page.locator("article table a[href='#scoreboard-full-size']").first
    link.click()
    claim = page.locator("section:has(> #scoreboard-full-size) details").first
    assert claim.get_attribute("open") is not None and claim.locator("table").is_visible()
    assert folds.count() > 20 and sum(fold.get_attribute("open") is not None for fold in folds.all()) == 1
    page.goto("about:blank")
    page.goto(f"{address.as_uri()}#scoreboard-depth")  # as from another chapter
    assert page.locator("section:has(> #scoreboard-depth) table").first.is_visible()
    page.context.close()


def test_the_site_opens_at_the_book(site: Path, browser: Browser) -> None:
    page = open_page(browser, site / "index.html", Visit())
    page.wait_for_url("**/book/index.html")
    page.context.close()
