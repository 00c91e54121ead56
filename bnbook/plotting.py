"""The book's figure style and its recurring figures."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

# Okabe & Ito's palette, which colour-blind readers can tell apart. Two of it mean one thing everywhere in the book.
WITH_BN, WITHOUT_BN = "#0072B2", "#D55E00"
GREEN, PURPLE, SKY, YELLOW, GREY = "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6b6b6b"
WINE, INDIGO = "#882255", "#332288"  # of Tol's palette, for what has more than five kinds
PALETTE = [GREEN, PURPLE, YELLOW, SKY, GREY, WINE, INDIGO]
# A script each in book/_assets/live
LIVE_FIGURES = (
    "axes",
    "backward",
    "bet",
    "bets",
    "company",
    "decide",
    "depth",
    "epsilon",
    "fold",
    "forward",
    "graph",
    "merge",
    "rates",
    "relatives",
    "repair",
    "roofline",
    "running",
)


def use_style() -> None:
    """Set the style of the book: 6 inches at 100 dpi, so that letters stay readable on a phone.

    In a notebook each figure is stored twice: as the PNG that the tests compare, and as the SVG that the pages show.
    """
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.figsize": (6, 3.2),
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e5e5e5",
            "axes.axisbelow": True,
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "legend.frameon": False,
            "lines.linewidth": 2,
            "image.cmap": "gray",
            "image.interpolation": "none",  # the pixels of a small picture, which a page may draw at any size
            "svg.hashsalt": "bnbook",  # the same names in the SVG at every run
        }
    )
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", "svg", metadata={"Date": None, "Creator": None})
        for kind, light in (("image/svg+xml", shortened), ("image/png", with_few_colours)):
            formatter = shell.display_formatter.formatters[kind]
            formatter.for_type(Figure, _then(light, formatter.lookup_by_type(Figure)))


def _then(light: Callable[[str], str], draw: Callable[[Figure], str]) -> Callable[[Figure], str]:
    return lambda figure: light(draw(figure))


LARGE = 80_000  # bytes of a PNG


def with_few_colours(png: str) -> str:
    """A PNG in base64; one of more than `LARGE` bytes with the 64 colours that serve it best, a third of the bytes."""
    content = base64.b64decode(png)
    if len(content) <= LARGE:
        return png
    from PIL import Image

    small = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE).save(
        small, "PNG", optimize=True
    )
    return base64.b64encode(small.getvalue()).decode()


_NUMBER = re.compile(r"(?<![\w#.])-?\d+\.\d+(?:e-\d+)?")
_NOISE = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)


def shortened(svg: str) -> str:
    """matplotlib's SVG in the fewest bytes that look the same, on one line: about half, as a notebook stores it."""
    svg = _NUMBER.sub(_shorter, _NOISE.sub("", svg))
    return re.sub(r"\s+", " ", svg).replace("> <", "><").replace("; ", ";").replace(": ", ":").strip()


def _shorter(number: re.Match[str]) -> str:
    """Two decimals are a seventieth of a pixel; a factor below 1 keeps six, since it may scale all letters."""
    value = float(number[0])
    return f"{value:.{2 if abs(value) >= 1 else 6}f}".rstrip("0").rstrip(".")


def shared_statistics(ax: Axes, groups: np.ndarray, title: str) -> None:
    """Draw which values share one mean and one variance: equal colours are averaged together.

    Args:
        ax: where to draw.
        groups: integer labels, (N, C) for a table of features or (N, C, H, W) for images; from 0, below 14 all differ.
        title: over the picture.
    """
    table = groups.reshape(*groups.shape, 1, 1) if groups.ndim == 2 else groups
    n, channels, height, width = table.shape

    def tint(label: int) -> tuple[float, ...]:
        """The colours of the palette, then the same ones lighter: another label, another colour."""
        light = 0.6 * (label // len(PALETTE) % 2)
        return tuple(light + (1 - light) * part for part in to_rgb(PALETTE[label % len(PALETTE)]))

    for i, c, h, w in np.ndindex(table.shape):
        ax.add_patch(
            plt.Rectangle(
                (c * (width + 0.7) + w, -i * (height + 0.7) - h),
                0.92,
                0.92,
                facecolor=tint(int(table[i, c, h, w])),
            )
        )
    ax.set(
        title=title,
        xlim=(-0.4, channels * (width + 0.7)),
        ylim=(-(n * (height + 0.7)) + 1, 1.4),
        aspect="equal",
        xticks=[c * (width + 0.7) + width / 2 for c in range(channels)],
        yticks=[0.5 - i * (height + 0.7) - (height - 1) / 2 for i in range(n)],
    )
    ax.set_xticklabels([f"$c={c}$" for c in range(channels)])
    ax.set_yticklabels([f"$n={i}$" for i in range(n)])
    ax.tick_params(length=0)
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a live figure takes values of JSON and arrays, not {type(value).__name__}: {str(value)[:60]}")


class LiveFigure:
    """The place of a live figure in a cell's output; see `live`."""

    def __init__(self, name: str, data: dict[str, Any]) -> None:
        self.name, self.data = name, data
        try:
            self._json = json.dumps(data, ensure_ascii=False, allow_nan=False, default=_plain)
        except ValueError:
            raise ValueError(f"the data of the live figure {name!r} have a NaN or an infinity") from None

    def __repr__(self) -> str:
        return f"live figure: {self.name}"

    def _repr_html_(self) -> str:
        inside = self._json.replace("<", "\\u003c") if self.data else ""  # "</script>" in a text would end the script
        script = f'<script type="application/json">{inside}</script>' if inside else ""
        return f'<live-{self.name} class="live">{script}</live-{self.name}>'


def live(name: str, **data: Any) -> LiveFigure:
    """Put a live figure over the picture of the same cell, on the page.

    The last line of a cell, after `plt.show()`. Notebooks, paper and readers without JavaScript show the picture.

    Args:
        name: which one; `LIVE_FIGURES` lists them.
        **data: what the figure shows, as values of JSON or arrays.

    Raises:
        ValueError: a name that is not known; a number that JSON does not have (NaN, infinity).
        TypeError: data that are no values of JSON and no arrays.
    """
    if name not in LIVE_FIGURES:
        raise ValueError(f"there is no live figure {name!r}; there are {', '.join(LIVE_FIGURES)}")
    return LiveFigure(name, data)
