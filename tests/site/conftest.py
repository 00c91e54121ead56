"""The built book, and a browser to look at it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import axe_playwright_python
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
SETTLE = "document.fonts.ready.then(() => document.getAnimations().forEach(fade => fade.finish()))"
# Of tokens of code and of formulas that look alike on a page, one stays: axe spends most of its time on contrasts.
KEEP_ONE_OF_A_KIND = """() => {
    const kinds = new Set();
    const kindOf = leaf => {
        const grounds = [];
        for (let box = leaf; box; box = box.parentElement) grounds.push(getComputedStyle(box).backgroundColor);
        const {color, fontSize, fontWeight, opacity} = getComputedStyle(leaf);
        return [color, fontSize, fontWeight, opacity, ...new Set(grounds)].join();
    };
    const others = [];
    for (const token of document.querySelectorAll(':is(.highlight pre, dt.sig) span:not(:has(*)), .katex')) {
        const leaves = token.matches('.katex') ? token.querySelectorAll('.katex-html span:not(:has(*))') : [token];
        const unseen = [...leaves].map(kindOf).filter(kind => !kinds.has(kind));
        if (!unseen.length) others.push(token);
        unseen.forEach(kind => kinds.add(kind));
    }
    const places = others.map(token => token.getBoundingClientRect());
    for (const [i, token] of others.entries()) {
        if (token.matches('.katex')) {  // takes as much room, or a line of words would become wider than the page
            token.replaceChildren();
            token.style = `display: inline-block; width: ${places[i].width}px; height: ${places[i].height}px`;
        } else token.replaceWith(token.textContent);
    }
    return kinds.size;
}"""
# axe does not count MathML as text, and so takes a table heading that is a formula for an empty one.
RUN_AXE = "axe.run({exclude: ['th:has(.math)']}, {preload: false, resultTypes: ['violations', 'incomplete']})"
# What axe leaves undecided: letters of one character, in formulas, on what another box overlaps. (Those of drawings
# have a test of their own.) The ground of letters is made of all the boxes that they stand in.
INK_AND_GROUND = """places => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const painted = (colour, ground) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const coat of [ground, colour]) {
            canvas.fillStyle = coat;
            canvas.fillRect(0, 0, 1, 1);
        }
        return 'rgb(' + [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)].join() + ')';
    };
    return places.map(place => document.querySelector(place)).filter(leaf => leaf && !leaf.closest('svg')).map(leaf => {
        const boxes = [];
        for (let box = leaf; box; box = box.parentElement) boxes.unshift(getComputedStyle(box));
        const ground = boxes.reduce((below, box) => painted(box.backgroundColor, below), 'Canvas');
        const ink = painted(boxes.at(-1).color, ground);
        const large = parseFloat(boxes.at(-1).fontSize) >= 24;
        return [leaf.outerHTML.slice(0, 200), ...[ink, ground].map(c => c.match(/[0-9]+/g).map(Number)), large];
    });
}"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the book's pages, built from nothing with every warning an error; once for all workers."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "book"
    out.mkdir(exist_ok=True)
    with (out / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        said = out / "said"
        if not said.exists():
            said.write_text(_build(out), encoding="utf-8")
    if said.read_text(encoding="utf-8"):
        pytest.fail(f"the book does not build:\n{said.read_text(encoding='utf-8')[-4000:]}", pytrace=False)
    return out / "_build" / "html"


def _build(out: Path) -> str:
    """Build the pages in a folder; what is wrong with them, or nothing."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(ROOT)]
    command += ["--path-output", str(out), "-W", "--keep-going", "--quiet"]
    plain = {**os.environ, "BNBOOK_PRACTICE": ""}
    build = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=1200, env=plain)
    return build.stderr or f"exit status {build.returncode}" if build.returncode else ""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all pages; it is closed before the notebooks' kernels, which run event loops too, are started."""
    with sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome", playwright.chromium.executable_path)
        path = next(filter(None, map(shutil.which, names)), None)
        if path is None:
            reason = "no Chromium or Chrome on the PATH: the pages are not looked at in a browser"
            if os.environ.get("BNBOOK_REQUIRE_BROWSER") == "1":
                pytest.fail(f"{reason}, and BNBOOK_REQUIRE_BROWSER=1 requires it", pytrace=False)
            pytest.skip(reason)
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """What was seen of one page over all windows."""

    errors: list[str] = field(default_factory=list)
    requests: set[str] = field(default_factory=set)
    wider_than_the_window: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    formulas: int = 0


def violations(page: Page) -> list[str]:
    """What axe finds or leaves undecided: the rule, and the first place where it is broken. The page is changed."""
    page.evaluate(SETTLE)
    page.evaluate(KEEP_ONE_OF_A_KIND)
    page.evaluate(AXE)
    found = page.evaluate(RUN_AXE)
    broken, pale = found["violations"], []
    for undecided in found["incomplete"]:
        if undecided["id"] != "color-contrast":
            broken.append(undecided)
            continue
        places = [node["target"][0] for node in undecided["nodes"]]
        for html, ink, ground, large in page.evaluate(INK_AND_GROUND, places):
            if contrast(ink, ground) < (3 if large else 4.5):
                pale.append(f"color-contrast: {ink} on {ground}: {html}")
    return [f"{rule['id']}: {rule['help']}: {rule['nodes'][0]['html'][:200]}" for rule in broken] + pale


def open_page(browser: Browser, file: Path, seen: Visit, width: int = 1280, **settings: object) -> Page:
    page = browser.new_context(viewport={"width": width, "height": 900}, **settings).new_page()
    page.set_default_timeout(60_000)
    page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("requestfailed", lambda request: seen.errors.append(f"not loaded: {request.url}"))
    page.on("request", lambda request: seen.requests.add(request.url))
    page.goto(file.as_uri())
    page.wait_for_load_state("load")
    return page


def contrast(one: list[int], other: list[int]) -> float:
    """The ratio of WCAG 2."""

    def luminance(colour: list[int]) -> float:
        channels = [v / 255 for v in colour[:3]]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
