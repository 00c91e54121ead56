"""The live figures: their maths is the package's, and everybody can work them or sees the picture in their place.

They are tried on small pages, one a figure, built with the book's theme, style and loader. A figure is found by its
script in book/_assets/live; its maths needs an entry in MATHS, and data, where it takes some, one in DATA.
"""

from __future__ import annotations

import ast
import base64
import functools
import gzip
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from bnbook import experiments, nn, plotting
from bnbook import functional as F
from bnbook.experiments import interactive
from bnbook.experiments.claims import learning_rate
from bnbook.experiments.studies import gpu_speed
from bnbook.interop import into_previous, scale_and_shift
from bnbook.kernels import sync_batch_norm
from tests.site.conftest import AXE, ROOT, SETTLE, Visit, contrast, open_page

pytestmark = pytest.mark.long(seconds=60)

SCRIPTS = ROOT / "book" / "_assets" / "live"
FIGURES = sorted(script.stem for script in SCRIPTS.glob("*.js") if script.stem != "live")
DATA: dict[str, Callable[[], plotting.LiveFigure]] = {  # what the notebook hands to a figure
    "bet": lambda: interactive.bet("depth"),
    "decide": lambda: chart_of_the_chapter(),
    "depth": lambda: plotting.live("depth", relu=[[8, 1.84], [64, 1.49]], linear=[[8, 1.2], [64, 1.03]]),
    "rates": lambda: interactive.rates(rows_of_rates()),
    "roofline": lambda: plotting.live("roofline", fused=8, separate=13, flops={"fused": 26, "separate": 19}),
}
DRAWN = interactive.curve_bet(
    "gain-by-depth", "Gain by depth", "What does it gain?", [5, 20, 80], [0.01, 0.02, 0.2],
    low=-0.5, high=0.5, xname="layers", yname="gain",
)  # fmt: skip
BETS = {  # as a browser keeps them
    "depth": {"title": "Deeper networks", "said": "open", "page": "bet.html", "bet": "cannot tell", "found": "depends",
              "options": 5, "right": False},
    "faster": {"title": "Fewer updates", "said": "depends", "page": "bet.html", "bet": "depends", "found": "depends",
               "options": 4, "right": True},
    "full": {"title": "Full size", "said": "little", "page": "bet.html", "bet": "little", "found": None,
             "options": 5, "right": None},
    "gain": {"title": "Gain by depth", "said": [0, 0, 0.1], "page": "bet.html", "share": 0.07},
    "seen": {"title": "Just shown", "said": None, "page": "bet.html"},
}  # fmt: skip
ALT = "The picture that a live figure lies over."
WINDOWS = ((1280, "light"), (390, "dark"))  # a desk and a phone
WEIGHT_LIMIT = 10 * 1024
SMALLEST_LETTERS = 11  # px
CONFIG = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["myst_nb", "book_live"]
html_theme = "sphinx_book_theme"
html_static_path = [{str(ROOT / "book" / "_assets" / "static")!r}]
html_css_files, html_js_files = ["site.css"], ["site.js"]
html_context = {{"default_mode": "auto"}}
nb_execution_mode = "off"
"""


def picture() -> str:
    png = io.BytesIO()
    Image.new("RGB", (600, 260), "#ddd").save(png, "PNG")
    return base64.b64encode(png.getvalue()).decode()


@functools.cache
def chart_of_the_chapter() -> plotting.LiveFigure:
    """What chapter 26 hands to its figure: from its stored output."""
    chapter = nbformat.read(ROOT / "book" / "26_today.ipynb", as_version=4)
    html = [o.data.get("text/html", "") for cell in chapter.cells for o in cell.get("outputs", []) if "data" in o]
    (data,) = (re.search(r"<script[^>]*>(.*?)</script>", text, re.S)[1] for text in html if "<live-decide" in text)
    return plotting.live("decide", **json.loads(data))


@functools.cache
def function_of_the_chapter(name: str, number: str) -> Callable[..., Any]:
    """A function that a chapter defines by itself, from one of its cells."""
    (chapter,) = (ROOT / "book").glob(f"{number}_*.ipynb")
    cells = nbformat.read(chapter, as_version=4).cells
    (source,) = (cell.source for cell in cells if f"def {name}(" in cell.source)
    (defined,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == name)
    names: dict[str, Any] = {}
    exec(compile(ast.Module([defined], []), chapter.name, "exec"), names)
    return names[name]


def page_with(name: str, figure: plotting.LiveFigure | None = None, label: str = "") -> nbformat.NotebookNode:
    """A notebook as a chapter has it: a cell whose output is a captioned picture, and behind it the live figure."""
    figure = figure or (DATA[name]() if name in DATA else plotting.live(name))
    html = {"text/plain": repr(figure), "text/html": figure._repr_html_()}
    cell = new_code_cell(
        f'plotting.live("{name}")',
        execution_count=1,
        metadata={
            "mystnb": {"figure": {"caption": "A caption.", "name": f"fig-{label or name}"}, "image": {"alt": ALT}},
            "tags": ["hide-input"],
        },
        outputs=[
            new_output("display_data", {"image/png": picture(), "text/plain": "<Figure>"}),
            new_output("execute_result", html, execution_count=1),
        ],
    )
    cells = [new_markdown_cell(f"# {name}\n\nBefore."), cell, new_markdown_cell("After.\n\n" * 30)]
    return new_notebook(cells=cells, metadata={"language_info": {"name": "python", "pygments_lexer": "python"}})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page a figure, a page without one, and one that names a figure that there is not."""
    source, out = (tmp_path_factory.mktemp("live") / name for name in ("source", "html"))
    source.mkdir()
    (source / "conf.py").write_text(CONFIG, encoding="utf-8")
    toc = "\n".join(["# Start", "", "```{toctree}", *FIGURES, "drawn", "plain", "unknown", "```", ""])
    (source / "index.md").write_text(toc, encoding="utf-8")
    (source / "plain.md").write_text("# Plain\n\nNo figure.\n", encoding="utf-8")
    (source / "unknown.md").write_text("# Unknown\n\n<live-nothing></live-nothing>\n", encoding="utf-8")
    for name in FIGURES:
        nbformat.write(page_with(name), source / f"{name}.ipynb")
    nbformat.write(page_with("bet", DRAWN, "drawn"), source / "drawn.ipynb")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(source), str(out)]
    build = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=300)
    (out / "said").write_text(build.stderr, encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def open_figure(pages: Path, browser: Browser) -> Callable[..., Page]:
    def open_figure(name: str, width: int = 1280, **settings: object) -> Page:
        seen = Visit()
        page = open_page(browser, pages / f"{name}.html", seen, width, **settings)
        page.seen = seen
        if name == "bets" and settings.get("java_script_enabled", True):
            page.evaluate("bets => localStorage.setItem('bnbook-bets', JSON.stringify(bets))", BETS)
            page.reload()
        return page

    return open_figure


def drawing(page: Page) -> str:
    """What the reader sees of a figure: the parts, the places of the handles, the sentence."""
    return page.evaluate("(({stage, words}) => stage.innerHTML + words.textContent)(document.querySelector('.live'))")


# --- the maths -------------------------------------------------------------------------------------------------------


# A random case of a figure: the name of its static function, the arguments, and what the package makes of them.
Case = tuple[str, list[Any], dict[str, Any]]


def fold(rng: np.random.Generator) -> Case:
    w, b, mean, gamma, beta = (float(v) for v in rng.normal(size=5))
    variance, eps = float(rng.uniform(0.01, 3)), 1e-5
    a, t = scale_and_shift(*(np.array([v]) for v in (mean, variance, gamma, beta)), eps)
    right = [part.item() for part in into_previous(np.array([[w]]), np.array([b]), a, t)]
    wrong = {  # (W′, b′) in the words of equation 23.2
        "none": right,
        "nothing": [w, b],
        "bias": [right[0], right[1] + (1 - a[0]) * b],
        "mean": [right[0], right[1] + a[0] * mean],
        "beta": [right[0], right[1] - beta],
        "variance": [gamma / (variance + eps) * w, gamma / (variance + eps) * (b - mean) + beta],
    }
    mistake = str(rng.choice(list(wrong)))
    weight, bias = wrong[mistake]
    ends = [abs((weight - right[0]) * x + bias - right[1]) for x in (0, 4)]
    expected = {"line": np.array(wrong[mistake]), "right": np.array(right)}
    if max(ends) > 0.1 * np.abs(right).max():  # a difference of equal numbers is rounding
        expected["apart"] = max(ends)
    return "fold", [w, b, mean, variance, gamma, beta, eps, mistake], expected


def forward(rng: np.random.Generator) -> Case:
    x = rng.normal(rng.normal(scale=5), rng.lognormal(), size=rng.integers(2, 40))
    gamma, beta, eps = rng.normal(scale=2), rng.normal(scale=5), 10 ** rng.uniform(-5, 1)
    y, cache = F.batch_norm(x[:, None], None, None, np.array([gamma]), np.array([beta]), training=True, eps=eps)
    x_hat = (cache.xc * cache.inv_std)[:, 0]
    expected = {"mean": x.mean(), "variance": x.var(), "centered": cache.xc[:, 0], "xHat": x_hat, "y": y[:, 0]}
    return "batchNorm", [x.tolist(), gamma, beta, eps], expected


def batch_with_gradients(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Σg and Σgx̂ are not near zero, where a relative error says nothing."""
    x = rng.normal(rng.normal(scale=5), rng.lognormal(), size=rng.integers(3, 40))
    return x, rng.normal(2 + 2 * (x - x.mean()) / x.std())


def backward(rng: np.random.Generator) -> Case:
    x, g = batch_with_gradients(rng)
    gamma, eps, training = rng.normal(scale=2), 10 ** rng.uniform(-5, 1), bool(rng.integers(2))
    running = () if training else (np.array([x.mean()]), np.array([x.var()]))
    _, cache = F.batch_norm(
        x[:, None], *(running or (None, None)), np.array([gamma]), np.zeros(1), training=training, eps=eps
    )
    grads = F.batch_norm_backward(g[:, None], cache)
    expected = dict(zip(("gradX", "gradWeight", "gradBias"), map(np.ravel, grads), strict=True))
    return "batchNormBackward", [x.tolist(), g.tolist(), gamma, eps, training], expected


def axes(rng: np.random.Generator) -> Case:
    kind = str(rng.choice(["batch", "layer", "instance", "group"]))
    groups = int(rng.choice([1, 2, 3, 6]))
    x, eps = rng.normal(rng.normal(scale=5), 2, size=(*rng.integers(2, 5, size=1), 6, 3, 2)), 10 ** rng.uniform(-5, 1)
    y, cache = {
        "batch": lambda: F.batch_norm(x, None, None, training=True, eps=eps),
        "layer": lambda: F.layer_norm(x, x.shape[1:], eps=eps),
        "instance": lambda: F.instance_norm(x, eps=eps),
        "group": lambda: F.group_norm(x, groups, eps=eps),
    }[kind]()
    averaged = [cache.xc.shape[axis] for axis in cache.axes]
    expected = {"xHat": y.ravel(), "m": np.prod(averaged), "mean": (x - cache.xc.reshape(x.shape)).ravel()}
    return "normalize", [x.ravel().tolist(), list(x.shape), kind, groups, eps], expected


def graph(rng: np.random.Generator) -> Case:
    x, g = batch_with_gradients(rng)
    gamma, beta, eps = rng.normal(scale=2), rng.normal(scale=5), 10 ** rng.uniform(-5, 1)
    y, cache = F.batch_norm(x[:, None], None, None, np.array([gamma]), np.array([beta]), training=True, eps=eps)
    grads = F.batch_norm_backward(g[:, None], cache)
    expected = dict(zip(("gradX", "gradGamma", "gradBeta"), map(np.ravel, grads), strict=True))
    centered, s = cache.xc[:, 0], cache.inv_std.item()
    expected |= {"mu": x.mean(), "centered": centered, "variance": x.var(), "s": s, "xHat": centered * s, "y": y[:, 0]}
    # The gradients inside: those of a layer that ends at the value are those of the package with less before it.
    expected["gradXHat"] = gamma * g
    expected["gradCentered"] = expected["gradX"] + (gamma * s * g).mean()  # all but the path through the mean
    expected["gradMu"] = -(gamma * s * g).sum()
    return "passes", [x.tolist(), g.tolist(), gamma, beta, eps], expected


def running(rng: np.random.Generator) -> Case:
    xs = rng.normal(rng.normal(scale=5), rng.lognormal(), size=(rng.integers(1, 60), rng.integers(2, 40)))
    alpha = rng.choice([None, 1.0, rng.uniform(0.001, 1)])
    layer, kept = nn.BatchNorm1d(1, momentum=alpha, dtype=np.float64), []
    for x in xs:
        layer(x[:, None])
        kept.append([layer.running_mean.item(), layer.running_var.item()])
    mean, variance = np.transpose(kept)
    return "running", [xs.tolist(), alpha], {"mean": mean, "variance": variance}


def company(rng: np.random.Generator) -> Case:
    x = rng.normal(rng.normal(scale=5), rng.lognormal(), size=(rng.integers(2, 40), 1))
    mean, variance, eps = rng.normal(size=1), rng.lognormal(size=1), 10 ** rng.uniform(-5, 0)
    outputs = {
        mode: F.batch_norm(x, mean.copy(), variance.copy(), training=mode == "training", eps=eps)[0][0, 0]
        for mode in ("training", "evaluation")
    }
    expected = {"mean": x.mean(), "variance": x.var(), **outputs}
    return "company", [x[0, 0], x[1:, 0].tolist(), mean.item(), variance.item(), eps], expected


def decide(rng: np.random.Generator) -> Case:
    size = int(rng.integers(1, 12))
    after = [list(range(i + 1, size)) + [-1 - k for k in range(4)] for i in range(size)]
    chart = [[int(rng.choice(places)) for _ in range(2)] for places in after]
    said = [bool(yes) for yes in rng.integers(2, size=rng.integers(0, size + 2))]
    path, at = function_of_the_chapter("walk", "26")(chart, said)
    return "walk", [chart, said], {"path": path, "at": at}


def epsilon(rng: np.random.Generator) -> Case:
    sigma, eps = 10 ** rng.uniform(-6, 1), 10 ** rng.uniform(-10, 0)
    x = sigma * np.array([[-1.0], [1.0]])  # of this standard deviation
    y, cache = F.batch_norm(x, None, None, training=True, eps=eps)
    expected = {"output": y.std(), "gain": cache.inv_std.item(), "rho": eps * cache.inv_std.item() ** 2}
    return "epsilon", [sigma, eps], expected


def merge(rng: np.random.Generator) -> Case:
    x = torch.tensor(rng.normal(rng.normal(scale=5), rng.lognormal(), size=(int(rng.integers(2, 40)), 1)))
    cut = int(rng.choice([0, len(x), rng.integers(len(x) + 1)]))
    parts = [sync_batch_norm.moments(part) for part in (x[:cut], x[cut:])]
    m, *stacked = (torch.stack([torch.as_tensor(p[i]) for p in parts]) for i in range(3))
    _, mean, M2 = sync_batch_norm.merge(m, *stacked)
    a, b = (np.array([float(value) for value in p]) for p in parts)
    averaged = np.mean([[p[1], p[2] / p[0]] for p in (a, b) if p[0]], axis=0)
    expected = {"a": a, "b": b, "mean": mean.item(), "M2": M2.item(), "averaged": averaged}
    return "merge", [x[:, 0].tolist(), cut], expected


@functools.cache
def rate_of_the_chapter() -> dict[bool, Callable[[float], float]]:
    """By whether there is ReLU: the functions of chapter 13, which checks them against networks."""
    chapter = nbformat.read(ROOT / "book" / "13_signals.ipynb", as_version=4)
    (source,) = (cell.source for cell in chapter.cells if "def relu_rate" in cell.source)
    names: dict[str, Any] = {"np": np}
    defined = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    exec(compile(ast.Module(defined, []), "chapter 13", "exec"), names)
    return {True: names["relu_rate"], False: names["linear_rate"]}


def depth(rng: np.random.Generator) -> Case:
    m, relu, layers = int(rng.integers(4, 1000)), bool(rng.integers(2)), int(rng.integers(2, 100))
    rate = rate_of_the_chapter()[relu](m)
    return "growth", [m, relu, layers], {"rate": rate, "whole": rate ** (layers - 1)}


@functools.cache
def rows_of_rates() -> list[dict]:
    return experiments.select(experiments.load("learning_rate"), steps=learning_rate.ALL_RATES)


def rates(rng: np.random.Generator) -> Case:
    rows = rows_of_rates()
    setting = dict(zip(("optimizer", "init"), map(str, rng.choice(learning_rate.conditions(rows))), strict=True))
    norm, within = str(rng.choice(["batch", "none"])), rng.uniform(0, 0.3)
    choice = learning_rate.at_best_rate(rows, **setting, norm=norm)  # of equals the first, as here
    best = max(choice.means.values())
    usable = [lr for (lr,), mean in choice.means.items() if mean >= best - within]
    expected = {"lr": choice.values["lr"], "accuracy": best, "usable": [min(usable), max(usable)]}
    table = interactive.rates(experiments.select(rows, **setting)).data["rows"]
    return "best", [table, setting, norm, within], expected


def relatives(rng: np.random.Generator) -> Case:
    kind = str(rng.choice(["batch", "layer", "RMS", "group", "instance", "position"]))
    groups = int(rng.choice([1, 2, 4]))
    x, eps = rng.normal(rng.normal(scale=5), 2, size=(int(rng.integers(2, 5)), 4, 3, 2)), 10 ** rng.uniform(-5, 1)
    y = {
        "batch": lambda: F.batch_norm(x, None, None, training=True, eps=eps)[0],
        "layer": lambda: F.layer_norm(x, x.shape[1:], eps=eps)[0],
        "RMS": lambda: F.rms_norm(x, x.shape[1:], eps=eps)[0],
        "group": lambda: F.group_norm(x, groups, eps=eps)[0],
        "instance": lambda: F.instance_norm(x, eps=eps)[0],
        "position": lambda: np.moveaxis(F.layer_norm(np.moveaxis(x, 1, -1), 4, eps=eps)[0], -1, 1),
    }[kind]()
    return "normalize", [x.ravel().tolist(), list(x.shape), kind, groups, eps], {"xHat": y.ravel()}


def bet(rng: np.random.Generator) -> Case:
    low, high = np.sort(rng.normal(size=2))
    drawn, found = rng.uniform(low, high, size=(2, rng.integers(2, 12)))
    share = np.abs(drawn - found).mean() / (high - low)
    return "distance", [drawn.tolist(), found.tolist(), low, high], {"share": share}


def bets(rng: np.random.Generator) -> Case:
    kept = [{**case} for case in BETS.values() for _ in range(rng.integers(4))]
    for case in kept:
        case.update({"share": rng.uniform()} if "share" in case else {})
    judged = [case for case in kept if case.get("right") is not None]
    shares = [case["share"] for case in kept if "share" in case]
    expected = {
        "judged": len(judged),
        "right": sum(case["right"] for case in judged),
        "chance": np.sum([1 / case["options"] for case in judged]),
        "curves": len(shares),
        "share": np.mean(shares or [0]),
    }
    return "tally", [kept], expected


def repair(rng: np.random.Generator) -> Case:
    x = rng.normal(rng.normal(scale=5), rng.lognormal(), size=rng.integers(2, 60))
    mean, variance = rng.normal(scale=5), rng.lognormal()
    alpha, steps, eps = rng.choice([None, rng.uniform(0.01, 0.9)]), int(rng.integers(0, 30)), 10 ** rng.uniform(-5, 0)
    layer = nn.BatchNorm1d(1, momentum=alpha, eps=eps, dtype=np.float64)
    layer.running_mean[:], layer.running_var[:] = mean, variance
    for _ in range(steps):
        layer(x[:, None])
    y = layer.eval()(x[:, None])[:, 0]
    left = (1 - alpha) ** steps if alpha else float(steps == 0)
    expected = {"mean": layer.running_mean.item(), "variance": layer.running_var.item(), "left": left, "y": y}
    return "repair", [x.tolist(), mean, variance, alpha, steps, eps], expected


def roofline(rng: np.random.Generator) -> Case:
    bandwidth, peak = 10 ** rng.uniform(10, 13), 10 ** rng.uniform(11, 15)
    values, size, maps, flops = (int(n) for n in rng.integers((1000, 2, 1, 1), (10**9, 8, 20, 2000)))
    found = gpu_speed.roofline(bandwidth, peak, values, size, maps, flops)
    expected = {"memory": found.memory_seconds, "arithmetic": found.flop_seconds, "seconds": found.seconds}
    expected |= {"bytes": found.bytes, "intensity": found.intensity, "flops": found.flops}
    return "roofline", [bandwidth, peak, values, size, maps, flops], expected


# A random case of each figure: the name of its static function, the arguments, what the package makes of them.
MATHS: dict[str, Callable[[np.random.Generator], Case]] = {
    "axes": axes,
    "backward": backward,
    "bet": bet,
    "bets": bets,
    "company": company,
    "decide": decide,
    "depth": depth,
    "epsilon": epsilon,
    "fold": fold,
    "forward": forward,
    "graph": graph,
    "merge": merge,
    "rates": rates,
    "relatives": relatives,
    "repair": repair,
    "roofline": roofline,
    "running": running,
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_maths_is_the_packages(open_figure: Callable[..., Page], name: str) -> None:
    page = open_figure(name)
    rng = np.random.default_rng(len(name))
    cases = [MATHS[name](rng) for _ in range(50)]
    call = "([name, cases]) => cases.map(([f, args]) => customElements.get(`live-${name}`)[f](...args))"
    results = page.evaluate(call, [name, [case[:2] for case in cases]])
    for (_, _, expected), result in zip(cases, results, strict=True):
        for key, value in expected.items():
            scale = np.abs(value).max()
            np.testing.assert_allclose(result[key], value, rtol=0, atol=1e-12 * scale, err_msg=key)
    page.context.close()


# --- everybody can work it -------------------------------------------------------------------------------------------


def press(page: Page, key: str) -> bool:
    """Whether the picture changes when a key is pressed."""
    before = drawing(page)
    page.keyboard.press(key)
    return drawing(page) != before


@pytest.mark.parametrize("name", FIGURES)
def test_every_control_answers_to_keys(open_figure: Callable[..., Page], name: str) -> None:
    page = open_figure(name, reduced_motion="reduce")
    for control in page.locator(".live input[type=range]:enabled").all():
        control.focus()
        assert press(page, "ArrowLeft") or press(page, "ArrowRight"), control.get_attribute("id")
    for control in page.locator(".live fieldset input:not(:checked)").element_handles():
        control.focus()
        assert press(page, "Space"), control.get_attribute("value")
    for handle in page.locator(".live svg [tabindex='0']:visible").all():
        handle.focus()
        assert press(page, "ArrowRight") and press(page, "ArrowLeft"), handle.get_attribute("aria-label")
    for handle in reversed(page.locator(".live svg [role=slider]:visible").all()):  # the last may depend on the others
        handle.focus()
        for key, limit in (("Home", "min"), ("End", "max")):
            page.keyboard.press(key)
            now, end = (float(handle.get_attribute(f"aria-value{what}")) for what in ("now", limit))
            assert abs(now - end) < 0.01
        assert press(page, "PageDown")
        assert float(handle.get_attribute("aria-valuenow")) <= now - 5 * 0.01
    page.evaluate("() => { window.asked = 0; window.requestAnimationFrame = () => { window.asked += 1; }; }")
    buttons = page.locator(".live button").element_handles()
    pressed = [button.focus() or press(page, "Enter") for button in buttons if button.is_enabled()]
    assert any(pressed) or not pressed
    assert page.locator(".live :is([tabindex], input, button)").count() > 0
    assert page.evaluate("[window.asked, document.getAnimations().length]") == [0, 0]  # nothing moves on its own
    assert page.seen.errors == []
    page.context.close()


@pytest.mark.parametrize("name", FIGURES)
def test_a_pause_speaks_the_sentence(open_figure: Callable[..., Page], name: str) -> None:
    page = open_figure(name)
    spoken, words = page.locator(".live [role=status]"), page.locator(".live-words")
    assert words.inner_text() and not spoken.text_content()  # nothing is spoken before the reader does something
    page.locator(".live :is(svg [tabindex='0'], input:enabled, button:enabled):visible").first.focus()
    for key in ("ArrowRight", "Enter"):  # a slider, or a button
        page.keyboard.press(key)
    page.wait_for_function("document.querySelector('.live [role=status]').textContent")
    assert spoken.text_content() == words.text_content()
    loaded = {url.partition("?")[0].rpartition("/")[2] for url in page.seen.requests if "/_static/live/" in url}
    assert loaded == {"live.js", "live.css", f"{name}.js"}
    page.context.close()


@pytest.mark.parametrize("name", FIGURES)
def test_it_is_pulled_by_pointer_and_by_finger(open_figure: Callable[..., Page], name: str) -> None:
    page = open_figure(name, width=390, has_touch=True)
    for handle in page.locator(".live svg [tabindex='0']:visible").all()[:2]:
        handle.scroll_into_view_if_needed()
        for pulls, way in ((pointer_pulls, 1), (finger_pulls, -1)):  # a finger upwards: the page could scroll
            box = handle.locator("*").first.bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            before, scrolled = drawing(page), page.evaluate("scrollY")
            pulls(page, [(x - way * k, y + way * k) for k in range(0, 70, 10)])
            assert drawing(page) != before, (handle.get_attribute("aria-label"), pulls.__name__)
            if handle.get_attribute("role") == "slider":
                assert page.evaluate("scrollY") == scrolled
    page.context.close()


def pointer_pulls(page: Page, path: list[tuple[float, float]]) -> None:
    page.mouse.move(*path[0])
    page.mouse.down()
    for point in path[1:]:
        page.mouse.move(*point)
    page.mouse.up()


def finger_pulls(page: Page, path: list[tuple[float, float]]) -> None:
    session = page.context.new_cdp_session(page)
    for kind, point in zip(["touchStart", *["touchMove"] * (len(path) - 1)], path, strict=True):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": point[0], "y": point[1]}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


# --- it can be read --------------------------------------------------------------------------------------------------


LETTERS = """[...document.querySelectorAll('.live :is(text, label, output, button, legend, p, code)')].map(part => {
    const {left, right} = part.getBoundingClientRect();
    return [part.textContent, parseFloat(getComputedStyle(part).fontSize), left, right];
})"""
# Of every text and of every part that has a colour: what it is, its colour, and the colour that it stands on.
COLOURS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgb = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const forced = matchMedia('(forced-colors: active)').matches;
    const ground = rgb(forced ? 'Canvas' : getComputedStyle(document.body).backgroundColor);
    const fill = part => rgb(getComputedStyle(part).fill);
    return [...document.querySelectorAll('.live svg :is(text, .live-dot, .live-fill)')].map(part => {
        const on = part.matches('.live-mark') ? fill(part.parentNode.querySelector('.live-dot')) : ground;
        return [part.tagName, part.textContent || part.getAttribute('class'), fill(part), on];
    });
}"""


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
@pytest.mark.parametrize("name", FIGURES)
def test_it_is_accessible(open_figure: Callable[..., Page], name: str, width: int, scheme: str) -> None:
    page = open_figure(name, width, color_scheme=scheme)
    assert page.seen.errors == []
    assert {url.partition(":")[0] for url in page.seen.requests} <= {"file", "data"}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for words, size, left, right in page.evaluate(LETTERS):
        assert size >= SMALLEST_LETTERS, words
        assert left >= 0 and right <= width, f"{words} is cut off"
    page.evaluate(AXE)
    found = page.evaluate("axe.run('.live-place', {preload: false, resultTypes: ['violations']})")["violations"]
    assert [(violation["id"], violation["nodes"][0]["html"]) for violation in found] == []
    for forced in ("none", "active"):  # axe does not measure the colours of SVG
        page.emulate_media(forced_colors=forced)
        for tag, words, colour, ground in page.evaluate(COLOURS):
            assert contrast(colour, ground) >= (4.5 if tag == "text" else 3), (words, colour, ground, forced)
    page.context.close()


# --- where it stands -------------------------------------------------------------------------------------------------


def size_of_picture(page: Page) -> float:
    return page.locator(f"img[alt='{ALT}']").bounding_box()["width"]


@pytest.mark.parametrize("name", FIGURES)
def test_the_picture_is_what_paper_and_pages_without_javascript_show(
    open_figure: Callable[..., Page], name: str
) -> None:
    page = open_figure(name)
    assert size_of_picture(page) < 10
    assert page.locator(f"figure#fig-{name} > .live").count() == 1
    assert page.locator("figcaption:visible").count() == 1
    page.emulate_media(media="print")
    assert size_of_picture(page) > 300
    assert not page.locator(".live").is_visible()
    page.context.close()
    page = open_figure(name, java_script_enabled=False)
    assert size_of_picture(page) > 300
    assert page.locator(".live").inner_text().strip() == ""
    page.context.close()


def test_the_picture_stays_where_a_figure_fails(open_figure: Callable[..., Page]) -> None:
    page = open_figure(FIGURES[0])
    page.evaluate("""() => {
        Live.define("broken", class extends Live.Figure { build() { throw new Error("planted"); } });
        const cell = document.createElement("div");
        cell.className = "cell_output";
        cell.innerHTML = "<figure><img alt='other' width='300'><live-broken></live-broken></figure>";
        document.querySelector("article").append(cell);
    }""")
    assert page.seen.errors == ["planted"]
    assert page.locator("img[alt='other']").bounding_box()["width"] == 300
    assert page.locator("live-broken").inner_html() == ""
    page.context.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", FIGURES)
def test_its_place_is_kept_before_it_draws(pages: Path, browser: Browser, name: str, width: int) -> None:
    """What stands below the figure is where it was before the scripts came: no shift that a reader notices."""
    places = []
    for scripts in ("nothing", r"/live/\w+\.js"):
        context = browser.new_context(viewport={"width": width, "height": 900})
        context.route(re.compile(scripts), lambda route: route.abort())
        page = context.new_page()
        page.goto((pages / f"{name}.html").as_uri())
        page.wait_for_load_state("load")
        page.evaluate(SETTLE)
        assert page.locator(".live svg").count() == (scripts == "nothing")
        places.append(
            [page.locator(what).first.bounding_box()["y"] for what in ("figcaption", "article p:text('After.')")]
        )
        context.close()
    assert np.abs(np.subtract(*places)).max() <= 0.05 * 900


def test_a_page_without_a_figure_loads_none_of_it(open_figure: Callable[..., Page]) -> None:
    page = open_figure("plain")
    assert not [url for url in page.seen.requests if "/live/" in url]
    page.context.close()


def test_a_figure_without_a_script_or_a_picture_is_a_warning_of_the_build(pages: Path) -> None:
    said = (pages / "said").read_text(encoding="utf-8").strip().splitlines()
    assert len(said) == 2
    assert "<live-nothing has no captioned picture" in said[0]
    assert "no script nothing.js for <live-nothing>" in said[1]


@pytest.mark.parametrize("name", FIGURES)
def test_it_is_light(name: str) -> None:
    weights = {file.stem + file.suffix: len(gzip.compress(file.read_bytes(), 6)) for file in SCRIPTS.iterdir()}
    share = (weights["live.js"] + weights["live.css"]) / len(FIGURES)
    assert weights[f"{name}.js"] + share <= WEIGHT_LIMIT


def test_the_notebooks_know_every_script() -> None:
    assert list(plotting.LIVE_FIGURES) == FIGURES


# --- bets ------------------------------------------------------------------------------------------------------------


def button(page: Page, words: str) -> Locator:
    return page.get_by_role("button", name=words, exact=True)


@pytest.mark.parametrize("name", ["bet", "drawn"])
def test_the_result_is_veiled_until_the_bet_is_placed(open_figure: Callable[..., Page], pages: Path, name: str) -> None:
    page = open_figure(name)
    picture = page.locator(f"img[alt='{ALT}']")
    words = page.locator(".live-words")
    assert not picture.is_visible() and button(page, "Place my bet").is_disabled()
    assert "Measured" not in page.locator(".live").inner_text()
    if name == "bet":
        page.get_by_label("it depends on the conditions").check()
    else:
        page.get_by_role("slider", name="your value at layers 5").focus()
        page.keyboard.press("ArrowUp")
    button(page, "Place my bet").press("Enter")
    assert picture.is_visible()
    end = page.locator(".live").evaluate("bet => bet.getBoundingClientRect().bottom")
    assert picture.evaluate("picture => picture.getBoundingClientRect().top") >= end  # under the bet, not over it
    assert page.evaluate("document.activeElement.textContent") == "Bet again"  # not lost with the greyed button
    right = "Right. Measured: it depends on the conditions." if name == "bet" else "8 % of the axis"
    assert right in words.inner_text()
    assert page.get_by_role("slider").count() == 0
    page.reload()
    assert picture.is_visible() and right in words.inner_text()  # it is remembered
    page.goto((pages / "bets.html").as_uri())
    title, said = ("Deeper networks", "1 of your 1 verdict") if name == "bet" else ("Gain by depth", "8 % of the axis")
    expect(page.locator(".live-bets")).to_contain_text(title)  # what one page keeps reaches the next by an event
    expect(words).to_contain_text(said)
    page.get_by_role("link", name=title).click()
    assert page.url.endswith(f"{name}.html")
    button(page, "Bet again").press("Enter")
    assert not picture.is_visible()
    page.goto((pages / "bets.html").as_uri())
    expect(words).to_contain_text("no bet")
    assert button(page, "Forget all my bets").is_disabled()
    assert page.seen.errors == []
    page.context.close()


def test_who_does_not_bet_sees_the_result_all_the_same(open_figure: Callable[..., Page], pages: Path) -> None:
    page = open_figure("bet")
    button(page, "Just show me").click()
    assert page.locator(f"img[alt='{ALT}']").is_visible()
    assert page.locator(".live-words").inner_text().startswith("Measured:")
    page.goto((pages / "bets.html").as_uri())
    assert "no bet" in page.locator(".live-words").inner_text()
    page.context.close()


def test_a_printed_result_is_veiled_too(open_figure: Callable[..., Page]) -> None:
    page = open_figure("bet")
    page.evaluate(
        """data => {
        const cell = document.createElement("div");
        cell.className = "cell_output";
        cell.innerHTML = "<div class='output stream'>Supported.</div><div class='output text_html'></div>";
        const bet = document.createElement("live-bet");
        bet.className = "live";
        bet.innerHTML = `<script type="application/json">${JSON.stringify(data)}</script>`;
        cell.lastChild.append(bet);
        document.querySelector("article").append(cell);
    }""",
        {**DATA["bet"]().data, "id": "printed"},
    )
    printed = page.get_by_text("Supported.")
    assert not printed.is_visible()
    page.locator(".live").last.get_by_role("button", name="Just show me").click()
    assert printed.is_visible()
    page.context.close()


def test_bets_are_forgotten_on_demand(open_figure: Callable[..., Page]) -> None:
    page = open_figure("bets")
    expect(page.locator(".live-bets li")).to_have_count(sum(bet["said"] is not None for bet in BETS.values()))
    button(page, "Forget all my bets").click()
    assert page.locator(".live-bets li").count() == 0
    assert page.evaluate("localStorage.getItem('bnbook-bets')") is None
    page.context.close()


def test_a_bet_works_where_nothing_may_be_kept(open_figure: Callable[..., Page], pages: Path) -> None:
    page = open_figure("plain")
    page.add_init_script("""for (const name of ['getItem', 'setItem']) {
        const allowed = Storage.prototype[name];
        Storage.prototype[name] = function (key, ...more) {
            if (key === 'bnbook-bets') throw new Error('not allowed');  // the theme keeps its own
            return allowed.call(this, key, ...more);
        };
    }""")
    page.goto((pages / "bet.html").as_uri())
    page.get_by_label("the reverse").check()
    button(page, "Place my bet").click()
    assert "You said: the reverse. Not so." in page.locator(".live-words").inner_text()
    page.goto((pages / "bets.html").as_uri())
    assert "no bet" in page.locator(".live-words").inner_text()
    assert page.seen.errors == []
    page.context.close()


# --- in the chapters -------------------------------------------------------------------------------------------------

USED = [
    (notebook.stem, name)
    for notebook in sorted((ROOT / "book").glob("*.ipynb"))
    for name in dict.fromkeys(re.findall(r"<live-([a-z]+)", notebook.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("chapter", "name"), USED)
def test_a_chapter_has_its_figure(site: Path, browser: Browser, chapter: str, name: str) -> None:
    seen = Visit()
    page = open_page(browser, site / f"book/{chapter}.html", seen)
    assert page.locator(f"live-{name} svg").first.bounding_box()["height"] > 50
    if name not in ("bet", "bets"):  # these may stand several times, and without a picture
        figure = page.locator(f"figure:has(> img.live-still) > live-{name}")
        assert figure.count() == 1
        assert figure.locator("xpath=..").locator("figcaption .caption-number").count() == 1
    assert seen.errors == []
    page.context.close()
