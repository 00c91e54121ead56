"""The place that a live figure gets in a notebook."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from bnbook import plotting


def test_a_live_figure_is_an_element_with_its_data():
    data = {"rates": np.array([0.1, 0.25]), "best": np.float64(0.5), "count": np.int64(3), "note": "</script> σ²"}
    html = plotting.live("forward", **data)._repr_html_()
    found = re.fullmatch(
        r'<live-forward class="live"><script type="application/json">(.*)</script></live-forward>', html
    )
    assert "<" not in found[1]  # a text cannot end the script
    assert json.loads(found[1]) == {"rates": [0.1, 0.25], "best": 0.5, "count": 3, "note": "</script> σ²"}
    assert plotting.live("forward")._repr_html_() == '<live-forward class="live"></live-forward>'


def test_its_text_is_short_and_the_same_everywhere():
    assert repr(plotting.live("forward", x=np.zeros(1000))) == "live figure: forward"


def test_what_cannot_be_shown_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no live figure 'forwards'.*forward"):
        plotting.live("forwards")
    with pytest.raises(ValueError, match="'forward' have a NaN"):
        plotting.live("forward", x=float("nan"))
    with pytest.raises(TypeError, match="not set"):
        plotting.live("forward", x={1, 2})


def test_sets_of_shared_statistics_have_colours_of_their_own():
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    plotting.shared_statistics(ax, np.arange(12).reshape(3, 4), "instance")
    assert len({patch.get_facecolor() for patch in ax.patches}) == 12
    plt.close(figure)


def test_a_heavy_picture_is_stored_with_few_colours_and_looks_the_same():
    import base64
    import io

    from PIL import Image

    def png(image: Image.Image) -> str:
        content = io.BytesIO()
        image.save(content, "PNG")
        return base64.b64encode(content.getvalue()).decode()

    def pixels(text: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"), int)

    letters = np.random.default_rng(0).choice([0, 80, 160, 255], (900, 400, 1), p=[0.1, 0.1, 0.1, 0.7])
    picture = np.repeat(letters, 3, 2)
    for i, color in enumerate(plotting.PALETTE):  # a few pixels of each, as a marker has
        picture[5 * i : 5 * i + 4, :4] = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    smooth = np.random.default_rng(1).integers(0, 256, (60, 3))  # what lies between letters and paper
    picture[-60:, :] = smooth[:, None]
    heavy, light = (png(Image.fromarray(np.uint8(a))) for a in (picture, picture[:50]))
    assert len(base64.b64decode(heavy)) > plotting.LARGE > len(base64.b64decode(light))
    assert plotting.with_few_colours(light) == light
    small = plotting.with_few_colours(heavy)
    assert len(small) < 0.7 * len(heavy)
    assert np.abs(pixels(small) - pixels(heavy))[:-60].max() <= 3  # letters and markers
