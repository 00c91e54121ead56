"""Figures lose weight on the pages, and nothing that can be seen."""

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
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def png_of_a_figure() -> bytes:
    figure, ax = plt.subplots(figsize=(6, 3), dpi=100)
    rng = np.random.default_rng(0)
    ax.scatter(*rng.normal(size=(2, 300)), c=rng.uniform(size=300), cmap="viridis")
    ax.set(title="some dots", xlabel="across", ylabel="up")
    png = io.BytesIO()
    figure.savefig(png)
    plt.close(figure)
    return png.getvalue()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)


def test_a_figure_is_lighter_and_looks_the_same():
    png = png_of_a_figure()
    light = book_images.lighter(png)
    assert len(light) < 0.6 * len(png)
    difference = np.abs(pixels(light) - pixels(png))
    assert difference.mean() < 0.5
    assert (difference > 40).any(axis=-1).mean() < 1e-3


def test_what_is_light_already_stays_as_it_is():
    light = book_images.lighter(png_of_a_figure())
    assert book_images.lighter(light) == light


def test_transparency_becomes_white():
    png = io.BytesIO()
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(png, "PNG")
    assert (pixels(book_images.lighter(png.getvalue())) == 255).all()


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
