"""Figures follow the theme of the pages; formulas keep what stands behind them."""

from __future__ import annotations

import io
import re

import book_images
import book_katex
import matplotlib
import numpy as np
import pytest
from docutils import nodes
from docutils.utils import new_document

from bnbook import plotting
from tests.site.conftest import contrast

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def drawing() -> str:
    """As a notebook stores it: lines and bars in colours of the book and others, letters, a picture of few pixels."""
    plotting.use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(6, 3))
    left.plot([0, 2, 1], color=plotting.WITH_BN)
    left.bar([0, 1], [1, 2], color="#123456", edgecolor="white")
    left.set(title="a line", xlabel="across")
    right.imshow(np.eye(3))
    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    plt.close(figure)
    return plotting.shortened(svg.getvalue())


def colours(svg: str, theme: str) -> dict[str, str]:
    """The values of the variables of a themed drawing."""
    light, dark = re.search(
        r"<style>svg\{(.*?)\}@media\(prefers-color-scheme:dark\)\{svg\{(.*?)\}\}</style>", svg
    ).groups()
    return dict(pair.split(":") for pair in {"light": light, "dark": dark}[theme].rstrip(";").split(";"))


def on(colour: str, ground: str) -> float:
    """The contrast of two colours in hexadecimals."""
    return contrast(*([int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in (colour, ground)))


def test_a_drawing_follows_the_theme():
    svg = drawing()
    themed = book_images.themed(svg)
    light, dark = colours(themed, "light"), colours(themed, "dark")
    assert plotting.WITH_BN.lower() in light.values() and book_images.TWINS["#0072b2"] in dark.values()
    assert light.keys() == dark.keys() and all(light[name] != dark[name] for name in light)
    assert on(dark["fill"], "#121212") > 10 and on(light["fill"], "#ffffff") > 10  # the letters
    assert len(re.findall("fill:none", themed)) - len(re.findall("fill:none", svg)) == 3  # figure and axes, no bar
    assert "#123456" in themed and "stroke:#ffffff" in themed  # of no twin; a white line upon a colour
    assert re.search(r"data:image/png[^\"]+", themed)[0] == re.search(r"data:image/png[^\"]+", svg)[0]
    with pytest.raises(ValueError, match="no figure of matplotlib"):
        book_images.themed("<svg></svg>")


@pytest.mark.parametrize("colour", [plotting.WITH_BN, plotting.WITHOUT_BN, *plotting.PALETTE])
def test_every_colour_of_the_book_can_be_seen_in_the_dark(colour):
    assert on(book_images.in_the_dark(colour.lower()), "#121212") >= 4.5


def test_a_shortened_drawing_is_the_same_drawing():
    """Numbers stay within a hundredth of a point, and shortening twice changes nothing."""
    figure = plt.figure()
    figure.text(0.123456789, 0.5, "letters", size=11)
    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    plt.close(figure)
    short = plotting.shortened(svg.getvalue())
    assert plotting.shortened(short) == short and len(short) < len(svg.getvalue())
    was, now = (
        re.search(r"translate\((\S+) (\S+)\) scale\((\S+) -", text).groups() for text in (svg.getvalue(), short)
    )
    assert np.allclose(np.array(was, float), np.array(now, float), rtol=0, atol=0.005)


@pytest.mark.long
def test_a_formula_keeps_its_full_stop(site):
    text = (site / "book/02_forward.html").read_text(encoding="utf-8")
    assert re.search(r'<span class="nobreak"><span class="math[^>]*>.*?</span>[.,]</span>', text)


def test_equal_texts_around_formulas_keep_their_places():
    document = new_document("page")
    line = nodes.paragraph("", "", nodes.emphasis("", "a"), nodes.Text(", "), nodes.math("", "b"), nodes.Text(", "))
    document += line
    transform = object.__new__(book_katex.KeepPunctuation)
    transform.document = document
    transform.run()
    assert [node.astext() for node in line] == ["a", ", ", "b,", " "]
