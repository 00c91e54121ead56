"""How a page reads: its letters and widths, the row under its title, previews, paper, and life without JavaScript."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import book_pages
import book_previews
import pytest
from playwright.sync_api import Browser, Locator, Page, Route

from tests.site.conftest import ROOT, Visit, open_page, violations
from tests.site.test_pages import UNFOLD

STATIC = ROOT / "book" / "_assets" / "static"
FONTS_LIMIT = 70 * 1024


# Letters ------------------------------------------------------------------------------------------------------------


def letters_of_the_face() -> set[str]:
    """What site.css says is in the font files."""
    css = (STATIC / "site.css").read_text(encoding="utf-8")
    ranges = re.findall(r"U\+([0-9A-F]+)(?:-([0-9A-F]+))?", re.search(r"unicode-range:(.*?);", css, re.S)[1])
    return {chr(code) for first, last in ranges for code in range(int(first, 16), int(last or first, 16) + 1)}


def prose() -> Iterator[tuple[str, str]]:
    """Every source of words, without its code and formulas."""
    for file in [*(ROOT / "book").glob("*.ipynb"), *(ROOT / "book").glob("*.md")]:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        yield file.name, re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.S)


def test_the_face_has_every_letter_of_the_prose():
    """A letter from another face stands out in a word. Chinese, small raised figures and ∎ are the reader's own."""
    own = re.compile("[\u2e80-\u9fff\uff00-\uffef⁰⁴-⁻₀-₉∎\\s]")
    face = letters_of_the_face()
    missing = {name: sorted({c for c in text if c not in face and not own.match(c)}) for name, text in prose()}
    assert {name: letters for name, letters in missing.items() if letters} == {}


def test_the_face_is_light():
    fonts = list((STATIC / "fonts").glob("*.woff2"))
    assert fonts
    assert sum(font.stat().st_size for font in fonts) <= FONTS_LIMIT
    assert "Reserved Font Name" in (STATIC / "fonts" / "OFL.txt").read_text(encoding="utf-8")


# What the build does to a page --------------------------------------------------------------------------------------


def test_rules_that_nothing_uses_are_left_out():
    kept = [".used,.never{a:b}", "@media print{p.used{c:d}}", "p:not(.never){e:f}", ":is(.never,.used){g:h}"]
    kept += ["@keyframes turn{from{i:j}to{k:l}}", ".bs-tooltip-auto{m:n}"]
    gone = [".never{a:b}", "@media print{.never{c:d}}", ".used.never,p .never{e:f}"]
    assert book_pages.used_rules("".join(gone + kept + gone), {"used"}) == "".join(kept)


def test_a_picture_gets_its_size(tmp_path: Path):
    (tmp_path / "a.svg").write_text('<svg width="300pt" viewBox="0 0 300 150" height="150pt"></svg>', encoding="utf-8")
    page = '<img alt="dots" src="a.svg" /><img alt="sized" width="3" src="a.svg" /><img alt="not there" src="b.png" />'
    sized = '<img alt="dots" src="a.svg" width="400" height="200" decoding="async">'
    assert book_pages.with_sizes(page, tmp_path) == sized + page[page.index("/>") + 2 :]


OTHER = """
<div class="math" id="eq"><div class="equation"><i class="katex" id="x">m</i></div><a class="headerlink">#</a></div>
<dl><dt id="term-m">m</dt><dd><dl><dd>n</dd></dl></dd><dt>o</dt></dl>
<section id="words"><div class="citation" id="id1">A, 2015</div></section>
"""


def test_a_link_to_another_page_brings_a_copy():
    page = """katex.min.css <article><a class="reference internal" href="o.html#eq">(2.4)</a>
    <a class="reference internal" href="o.html#eq">again</a> <a class="reference internal" href="o.html#words">no</a>
    <a class="reference internal" href="o.html#term-m">m</a> <a class="reference internal" href="o.html#gone">no</a>
    <a class="reference internal" href="o.html#id1">A</a></article>"""
    copies = list(book_previews.previews(page, {"o.html": OTHER}))
    assert copies == [
        '<div data-of="o.html#eq"><div class="math"><div class="equation"><i class="katex">m</i></div></div></div>',
        '<div data-of="o.html#term-m"><dt>m</dt><dd><dl><dd>n</dd></dl></dd></div>',
        '<div data-of="o.html#id1"><div class="citation">A, 2015</div></div>',
    ]
    without_maths = list(book_previews.previews(page.replace("katex.min.css", ""), {"o.html": OTHER}))
    assert without_maths == copies[1:]  # a formula is nothing without its style sheet


@pytest.mark.long
def test_every_page_is_finished(site: Path):
    chapters = sorted((site / "book").glob("[0-9][0-9]_*.html"))
    assert len(chapters) >= 18
    for file in (site / "book").glob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert re.search(r'<html[^>]* data-theme="light"', text), file.name
        assert [image for image in re.findall(r"<img[^>]*>", text) if "height=" not in image] == [], file.name
        assert text.count('class="actions"') == (
            file in chapters or file.stem in ("conventions", "layer_costs", "checkup")
        ), file.name


# In the browser -----------------------------------------------------------------------------------------------------


@pytest.fixture
def open_in(site: Path, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages, and close them after the test; what went wrong in them fails it."""
    pages, seen = [], Visit()

    def open_in(document: str, **settings: object) -> Page:
        # Without JavaScript the scripts that the page asks for beforehand are not loaded, and that is no error.
        heard = seen if settings.get("java_script_enabled", True) else Visit()
        pages.append(open_page(browser, site / f"{document}.html", heard, **settings))
        return pages[-1]

    yield open_in
    for page in pages:
        page.context.close()
    assert seen.errors == []


def width_of(place: Locator) -> int:
    return round(place.evaluate("box => box.getBoundingClientRect().width"))


@pytest.mark.long
def test_prose_has_one_width_and_what_needs_more_may_have_it(open_in: Callable[..., Page]) -> None:
    page = open_in("book/02_forward", width=1600)
    prose = page.locator("article > section > section > p")
    assert {width_of(line) for line in prose.all()} == {672}
    assert width_of(page.locator("article div.cell_input:visible").first) == 672
    assert width_of(page.locator("article div.cell").first) > 780
    page.evaluate("document.fonts.ready")
    loaded = page.evaluate("[...document.fonts].filter(face => face.status === 'loaded').map(face => face.family)")
    assert "Book Serif" in [family.strip('"') for family in loaded]


@pytest.mark.long
def test_the_row_under_the_title_works_by_keyboard(site: Path, open_in: Callable[..., Page]) -> None:
    page = open_in("book/02_forward")
    row = page.locator(".actions")
    assert [place.inner_text().split()[0] for place in row.locator("> a, > button, summary").all()] == [
        "Notebook",
        "Run",
        "Print",
    ]
    assert row.bounding_box()["y"] < 200
    assert (site / "book" / row.locator("a").get_attribute("href")).resolve().name == "02_forward.ipynb"
    assert (site / "book" / row.locator("a").get_attribute("href")).is_file()
    row.locator("a").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    assert "make lab" in row.inner_text()
    assert "book/02_forward.ipynb" in row.inner_text()
    page.keyboard.press("Escape")
    assert "make lab" not in row.inner_text()
    page.evaluate("window.print = () => { window.printed = true }")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("window.printed")
    assert page.locator(".dropdown-download-buttons, .btn-fullscreen-button").count() == 0


@pytest.mark.long
def test_what_can_be_run_can_be_copied_and_nothing_else(open_in: Callable[..., Page]) -> None:
    page = open_in("book/02_forward")
    page.wait_for_selector("button.copybtn", state="attached")
    assert page.locator("button.copybtn").count() == page.locator("div.cell_input pre").count()


LINKS = {
    "an equation of the page": ("book/04_backward", "a.internal[href^='#equation-']", ".math .katex"),
    "an equation of another page": ("book/03_inference", "a[href*='02_forward.html#equation-']", ".math .katex"),
    "a citation": ("book/02_forward", "a[href*='bibliography.html#']", ".citation"),
    "a figure": ("book/02_forward", "a.internal[href='#fig-ch02-steps']", "figure img"),
    "a term": ("book/glossary", "a.internal[href='#term-batch']", "dd"),
}
ADD_LINK = """address => {
    const link = document.createElement("a");
    Object.assign(link, {className: "internal", href: address, textContent: "there"});
    document.querySelector("article section > p").append(" ", link);
}"""


@pytest.mark.long
@pytest.mark.parametrize("kind", LINKS)
def test_a_link_shows_what_it_leads_to(open_in: Callable[..., Page], kind: str) -> None:
    document, address, shown = LINKS[kind]
    page = open_in(document)
    if kind in ("a figure", "a term"):  # the book's words link to no figure, and to no term from the glossary
        page.evaluate(ADD_LINK, address.split("'")[1])
    link = page.locator(f"article {address}").first
    link.scroll_into_view_if_needed()
    link.hover()
    page.wait_for_selector(f"#preview {shown}")
    preview = page.locator("#preview")
    box = preview.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280
    assert preview.locator("[id], .headerlink:visible").count() == 0
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 8)  # it may be pointed at, and stays
    page.wait_for_timeout(400)
    assert preview.is_visible()
    page.keyboard.press("Escape")
    assert preview.count() == 0


@pytest.mark.long
def test_a_preview_comes_with_the_keyboard_and_goes_with_it(open_in: Callable[..., Page]) -> None:
    page = open_in("book/04_backward")
    link = page.locator("article a.internal[href^='#equation-']").first
    link.focus()
    page.keyboard.press("Shift+Tab")
    assert page.locator("#preview").count() == 0
    page.keyboard.press("Tab")
    assert page.locator("#preview").is_visible()
    assert link.get_attribute("aria-describedby") == "preview"
    page.keyboard.press("Tab")
    assert link.get_attribute("aria-describedby") is None


@pytest.mark.long
def test_a_finger_follows_the_link(open_in: Callable[..., Page]) -> None:
    page = open_in("book/04_backward", width=390, has_touch=True, is_mobile=True)
    link = page.locator("article a.internal[href^='#equation-']").first
    link.tap()
    page.wait_for_function("name => location.hash === name", arg=link.get_attribute("href"))
    page.wait_for_timeout(400)
    assert page.locator("#preview").count() == 0


@pytest.mark.long
def test_without_javascript_a_phone_has_the_contents_and_no_dead_button(
    site: Path, open_in: Callable[..., Page]
) -> None:
    page = open_in("book/02_forward", width=390, java_script_enabled=False, color_scheme="dark")
    assert page.locator("button:visible").count() == 0
    assert page.locator("article .actions a").is_visible()
    assert page.locator("html").get_attribute("data-theme") == "light"
    link = page.locator("nav.bd-docs-nav a", has_text="4 · The backward pass")
    box = link.bounding_box()
    assert 0 <= box["x"] <= 390 - box["width"]
    assert (site / "book" / link.get_attribute("href")).is_file()


@pytest.mark.long
def test_paper_is_light_and_has_everything_once(open_in: Callable[..., Page]) -> None:
    page = open_in("book/02_forward", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.evaluate(f"addEventListener('beforeprint', () => window.paper = {ground})")
    page.pdf(prefer_css_page_size=True)
    assert page.evaluate("window.paper") != dark
    assert page.evaluate(ground) == dark
    page.emulate_media(media="print")
    assert [title.inner_text() for title in page.locator("h1:visible").all()] == ["2 · The forward transform"]
    for unwanted in (".actions", "button", ".copybtn", "#jb-print-toc", ".headerlink", ".bd-sidebar"):
        assert page.locator(f"{unwanted}:visible").count() == 0, unwanted
    assert page.locator("article .tag_solution details[open]").count() == 0


@pytest.mark.long
def test_the_answers_of_a_quiz_are_folded_on_the_screen_and_stand_on_paper(open_in: Callable[..., Page]) -> None:
    page = open_in("book/00_warmup")
    answers = page.locator("article .admonition.dropdown > :not(.admonition-title, button)")
    assert answers.count() >= 5 and not any(answer.is_visible() for answer in answers.all())
    page.emulate_media(media="print")
    assert all(answer.is_visible() and answer.bounding_box()["height"] > 10 for answer in answers.all())


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_icons_stay_with_forced_colours(open_in: Callable[..., Page], scheme: str) -> None:
    page = open_in("book/02_forward", color_scheme=scheme, forced_colors="active")
    icon = "getComputedStyle(document.querySelector('.primary-toggle .fa-bars'), '::before').backgroundColor"
    assert page.evaluate(icon) != page.evaluate("getComputedStyle(document.body).backgroundColor")


ADDRESS = "http://book.test/"
SHIFTS = """() => new Promise(done => new PerformanceObserver(list => done(
    list.getEntries().reduce((sum, shift) => sum + (shift.hadRecentInput ? 0 : shift.value), 0)
)).observe({type: "layout-shift", buffered: true}) || setTimeout(done, 500, 0))"""


@pytest.fixture
def arrive_late(site: Path, browser: Browser) -> Iterator[Callable[[str, int], Page]]:
    """Open pages whose pictures and letters come only after the words are there, as on a slow line."""
    pages: list[Page] = []

    def arrive_late(address: str, width: int) -> Page:
        held: list[Route] = []

        def answer(route: Route) -> None:
            if hold and route.request.resource_type in ("image", "font"):
                held.append(route)
            else:
                route.fulfill(path=site / urlsplit(route.request.url).path.removeprefix("/"))

        hold = True
        page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        page.set_default_timeout(60_000)
        pages.append(page)
        page.route(f"{ADDRESS}**", answer)
        page.goto(ADDRESS + address, wait_until="domcontentloaded")
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")  # the words are there
        page.wait_for_timeout(300)
        assert {route.request.resource_type for route in held} == {"image", "font"}
        hold = False
        for route in held:
            answer(route)
        page.wait_for_load_state("load")
        page.evaluate("document.fonts.ready")
        page.wait_for_timeout(200)
        return page

    yield arrive_late
    for page in pages:
        page.context.close()


@pytest.mark.long
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_keeps_still_while_pictures_and_letters_arrive(
    arrive_late: Callable[[str, int], Page], width: int
) -> None:
    assert arrive_late("book/12_scale_invariance.html", width).evaluate(SHIFTS) <= 0.05


@pytest.mark.long
@pytest.mark.parametrize("address", ["book/02_forward.html#exercises", "book/11_speed.html#exercises"])
def test_a_link_into_a_page_leads_there_on_a_slow_line_too(
    arrive_late: Callable[[str, int], Page], address: str
) -> None:
    """Under the header, which is 64 pixels high; what arrives above it, formulas too, does not push it away."""
    page = arrive_late(address, 390)
    assert 60 <= page.locator("#exercises h2").first.bounding_box()["y"] <= 80


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_the_other_theme_of_each_width_is_accessible(open_in: Callable[..., Page], width: int, scheme: str) -> None:
    """test_pages visits every page on a light desk and a dark phone; this chapter has one of each kind of thing."""
    page = open_in("book/04_backward", width=width, color_scheme=scheme)
    page.locator(".actions summary").click()
    page.evaluate(UNFOLD)
    assert violations(page) == []
