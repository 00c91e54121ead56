"""Exercises that are tried in the page: the engine judges, is stopped, and a plain build has nothing of it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import book_practice
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.site.conftest import Visit, open_page, violations

pytestmark = pytest.mark.long(seconds=60)

PAGE = "book/02_forward"
PATIENCE = 300_000  # milliseconds: only for what hangs
KNOWN = {exercise.name: exercise for exercise in book_practice.exercises()}
JUDGE = """async request => {
    const {parts} = JSON.parse(document.getElementById("practice").textContent);
    return (await bookPython.run(parts, request, () => {}).done).said;
}"""


@pytest.fixture(scope="module")
def pages(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages, copied, with what `make book PRACTICE=1` adds to them."""
    try:
        book_practice.engine(), book_practice.fetch(book_practice.SHIM)
    except ConnectionError as error:
        if os.environ.get("BNBOOK_REQUIRE_PRACTICE") == "1":
            pytest.fail(f"{error} BNBOOK_REQUIRE_PRACTICE=1 requires it.", pytrace=False)
        pytest.skip("the Python that runs in the pages cannot be fetched")
    copy = tmp_path_factory.mktemp("practice") / "html"
    shutil.copytree(site, copy)
    book_practice.add_practice(copy)
    return copy


@pytest.fixture(scope="module")
def seen() -> Visit:
    return Visit()


@pytest.fixture(scope="module")
def page(pages: Path, browser: Browser, seen: Visit) -> Iterator[Page]:
    """Chapter 2, whose first exercise is opened: the engine is loaded once for all tests."""
    page = open_page(browser, pages / f"{PAGE}.html", seen)
    assert [url for url in seen.requests if "python.js" in url] == []  # before anybody asked for it
    cell(page, "ch02.output_variance").get_by_role("button", name="Try it here").click()
    page.evaluate("bookPython.prepare().then(() => true)")
    yield page
    page.context.close()


def cell(page: Page, name: str) -> Locator:
    """The stub and the call of an exercise."""
    call = page.locator(".cell", has=page.locator(".cell_input pre", has_text=f'check("{name}"')).first
    return call.locator("xpath=preceding-sibling::*[1]").or_(call)


def editor(page: Page, name: str) -> Locator:
    here = cell(page, name)
    if (start := here.get_by_role("button", name=re.compile("Try it|Go on"))).count():
        start.click()
    return here.get_by_label("Your answer")


def said(page: Page, name: str, answer: str) -> Locator:
    """Run an answer; what is said of it."""
    box = editor(page, name)
    box.fill(answer)
    box.press("Control+Enter")
    status = cell(page, name).get_by_role("status")
    expect(status).not_to_contain_text("Running", timeout=PATIENCE)
    return status


def test_the_list_is_what_the_engine_says(page: Page) -> None:
    """In either direction: every solution is judged by the checkers in the page, those that need PyTorch too."""
    request = [{"before": e.before, "answer": e.solution, "call": e.call} for e in KNOWN.values()]
    judged = dict(zip(KNOWN, page.evaluate(JUDGE, request), strict=True))
    passed = {name for name, found in judged.items() if found["passed"]}
    listed = set(book_practice.listed())
    assert {name: judged[name]["message"] for name in listed - passed} == {}, "listed, and does not pass"
    assert sorted(passed - listed) == [], "passes, and is not in exercises.txt"


def test_a_stub_is_not_attempted(page: Page) -> None:
    editor(page, "ch02.output_variance").press("Control+Enter")
    status = cell(page, "ch02.output_variance").get_by_role("status")
    expect(status).to_have_text("ch02.output_variance: not attempted", timeout=PATIENCE)


def test_an_answer_is_correct(page: Page) -> None:
    expect(said(page, "ch02.normalize", KNOWN["ch02.normalize"].solution)).to_have_text("ch02.normalize: correct")


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("ch02.output_variance", "def output_variance(var, weight, eps):\n    return weight**2", "for ε = 0 only"),
        (
            "ch02.normalize",
            "def normalize(x, eps):\n    x -= x.mean(0)\n    return x",
            "changed the array it was given",
        ),
        ("ch02.largest", "def largest(m):\n    return np.arange(m)", "the bound is"),
    ],
)
def test_a_wrong_answer_is_refused_in_the_words_of_the_checker(page: Page, name: str, answer: str, words: str) -> None:
    status = said(page, name, answer)
    expect(status).to_contain_text(f"{name}: not yet.")
    expect(status).to_contain_text(words)


def test_an_error_names_its_line(page: Page) -> None:
    status = said(page, "ch02.largest", "def largest(m):\n    x = np.zeros(m)\n    return x.meen()\n")
    expect(status).to_contain_text("'numpy.ndarray' object has no attribute 'meen'")
    expect(status).to_contain_text("Line 3, in largest")
    expect(status).to_contain_text("return x.meen()")
    expect(status).not_to_contain_text("bnbook")  # no frame of the checker
    status = said(page, "ch02.largest", "def largest(m)\n    return np.zeros(m)\n")
    expect(status).to_contain_text("SyntaxError: expected ':'")
    expect(status).to_contain_text("Line 1")


def test_what_the_page_has_not_is_named(page: Page) -> None:
    status = said(page, "ch02.largest", "def largest(m):\n    return 1\n\ntorch.zeros(3)\n")
    expect(status).to_contain_text("torch is not in the page")


def test_an_endless_loop_is_stopped(page: Page) -> None:
    name = "ch02.diagnose"
    here, box = cell(page, name), editor(page, name)
    box.fill("print('it begins')\nwhile True:\n    pass")
    here.get_by_role("button", name="Run").click()
    status = here.get_by_role("status")
    expect(status).to_contain_text("it begins", timeout=PATIENCE)
    here.get_by_role("button", name="Stop").click()
    expect(status).to_contain_text("Stopped.")
    expect(said(page, name, KNOWN[name].solution)).to_contain_text("correct")  # and the engine still runs


def test_an_answer_is_kept_until_it_is_reset(pages: Path, page: Page, seen: Visit) -> None:
    name, stub = "ch02.diagnose", KNOWN["ch02.diagnose"].stub
    editor(page, name).fill("mine")
    again = page.context.new_page()
    again.goto((pages / f"{PAGE}.html").as_uri())
    cell(again, name).get_by_role("button", name="Go on with your answer").click()
    box = editor(again, name)
    assert box.input_value() == "mine"
    cell(again, name).get_by_role("button", name="Reset").click()
    assert box.input_value() == stub
    again.reload()
    assert cell(again, name).get_by_role("button", name="Try it here").is_visible()
    again.close()


def test_the_editor_is_used_by_keyboard(page: Page) -> None:
    box = editor(page, "ch02.largest")
    box.fill("")
    page.keyboard.type("def largest(m):\n")
    page.keyboard.press("Tab")
    page.keyboard.type("return 1")
    assert box.input_value() == "def largest(m):\n        return 1"  # the line was indented behind the colon
    page.keyboard.press("Shift+Tab")
    assert box.input_value() == "def largest(m):\n    return 1"
    page.keyboard.press("Control+z")
    assert box.input_value() == "def largest(m):\n        return 1"
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Run"
    page.keyboard.press("Shift+Tab")
    expect(box).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+Tab")
    expect(box).not_to_be_focused()


@pytest.mark.parametrize(
    ("width", "settings"),
    [(1280, {"color_scheme": "light"}), (390, {"color_scheme": "dark"}), (390, {"forced_colors": "active"})],
)
def test_editors_fit_the_window_and_are_accessible(pages: Path, browser: Browser, width: int, settings: dict) -> None:
    found = Visit()
    page = open_page(browser, pages / f"{PAGE}.html", found, width, **settings)
    page.evaluate("bookPython.prepare = async () => {}")  # what is looked at does not run
    for name in ("ch02.output_variance", "ch02.normalize"):
        editor(page, name).fill(KNOWN[name].solution + "  # a long line" + " that goes on" * 9)
    for fold in page.locator(".practice-fold summary").all():
        fold.click()
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    box = editor(page, "ch02.normalize")
    assert box.evaluate("box => box.scrollHeight <= box.clientHeight + 20")  # it has grown with its lines
    assert violations(page) == []
    assert found.errors == []
    page.context.close()


def test_without_javascript_the_page_is_as_it_was(site: Path, pages: Path, browser: Browser) -> None:
    texts = []
    for folder in (site, pages):
        page = open_page(browser, folder / f"{PAGE}.html", Visit(), java_script_enabled=False)
        texts.append(page.locator("body").inner_text())
        page.context.close()
    assert texts[0] == texts[1]


def test_nothing_is_loaded_from_outside_and_nothing_fails(page: Page, seen: Visit) -> None:
    assert seen.errors == []
    assert {urlsplit(url).scheme for url in seen.requests} <= {"file", "data", "blob"}


def test_only_exercises_that_pass_have_an_editor(pages: Path) -> None:
    named = re.findall(r'id="practice">(.*?)</script>', (pages / "book/09_frameworks.html").read_text(encoding="utf-8"))
    assert len(named) == 1 and "ch09.fc_weight" in named[0] and "ch09.freeze" not in named[0]


def test_adding_it_twice_adds_it_once(pages: Path) -> None:
    before = (pages / f"{PAGE}.html").read_text(encoding="utf-8")
    book_practice.add_practice(pages)
    assert (pages / f"{PAGE}.html").read_text(encoding="utf-8") == before


def test_a_plain_build_has_nothing_of_it(site: Path) -> None:
    assert not (site / "_static" / "practice").exists()
    assert [file.name for file in site.rglob("*.html") if "practice.js" in file.read_text(encoding="utf-8")] == []


def test_what_cannot_be_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_practice, "CACHE", tmp_path)
    monkeypatch.setattr(book_practice, "RETRIES", 0)
    monkeypatch.setitem(book_practice.SOURCES, book_practice.SHIM, ("http://127.0.0.1:9/shim.tgz", "0" * 64))
    with pytest.raises(ConnectionError, match=r"browser_wasi_shim.* could not be fetched from http://127\.0\.0\.1:9/"):
        book_practice.fetch(book_practice.SHIM)
    assert [file.name for file in tmp_path.iterdir()] == []


def test_what_runs_before_an_answer_is_what_it_needs() -> None:
    earlier = """
import numpy as np, torch
from bnbook import data, plotting
images = data.load("train")
def half(x):
    images = x / 2
    return images
def unused(x):
    return half(x)
rng = np.random.default_rng(0)
start = rng.normal(size=3)
start[0] = 1
"""
    before = book_practice.needed(book_practice.without_checks(earlier), "def answer(rng):\n    return half(start)")
    assert before == [
        "import numpy as np",
        "import torch",
        "from bnbook import data",
        "from bnbook import plotting",
        "def half(x):\n    images = x / 2\n    return images",
        "rng = np.random.default_rng(0)",
        "start = rng.normal(size=3)",
        "start[0] = 1",
    ]
