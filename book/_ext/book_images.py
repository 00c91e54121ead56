"""The figures of the built pages follow the page's theme.

A notebook stores a figure twice, as PNG, which the tests compare, and as matplotlib's SVG, which the pages show. A page
draws an SVG inside an <img>, where it cannot see the page's colours; but ``prefers-color-scheme`` inside it follows the
``color-scheme`` of the page, which the theme sets with its switch. So each colour of the drawing becomes a variable
with a light and a dark value. The notebooks are left as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

# The colours of bnbook.plotting, and twins that have as much contrast to a dark page: at least 4.5 to 1 to #121212.
TWINS = {
    "#0072b2": "#4ba3e3",
    "#d55e00": "#f0813a",
    "#009e73": "#2bbd92",
    "#cc79a7": "#dd8fb9",
    "#56b4e9": "#7cc7f2",
    "#e69f00": "#f0b429",
    "#6b6b6b": "#a8a8a8",
    "#882255": "#d0709c",
    "#332288": "#9a8ee6",
}
INK, DARK_INK, DARK_PAPER = "#14181e", (206, 214, 221), (18, 18, 18)
STYLE = "<style>svg"  # with which a themed drawing begins
PIXELS_PER_POINT = 100 / 72  # a drawing is as large as the PNG of 100 dpi

COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
# matplotlib draws white rectangles behind the figure and behind each of its axes.
GROUND = re.compile(r'(<g id="patch_\d+">\s*<path d="[^"]*"[^>]*?style="[^"]*?)fill: ?#ffffff')
HEAD = re.compile(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')


def in_the_dark(colour: str) -> str:
    """A grey turned over between the theme's ink and paper; a colour of the book by its twin; others stay."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    if max(red, green, blue) - min(red, green, blue) > 8:
        return TWINS.get(colour, colour)
    share = red / 255
    return "#" + "".join(
        f"{round(ink + share * (paper - ink)):02x}" for ink, paper in zip(DARK_INK, DARK_PAPER, strict=True)
    )


def themed(svg: str) -> str:
    """matplotlib's drawing on no ground, with colours that follow the page."""
    svg = GROUND.sub(r"\1fill:none", svg)
    head = HEAD.search(svg)
    if head is None:
        raise ValueError("an SVG without a viewBox that starts at 0 0 is no figure of matplotlib")
    body = svg[head.end() :]
    used = sorted({colour.lower() for colour in COLOUR.findall(body)})
    # White stays where it is a line or a letter upon a colour: the grounds are gone.
    names = {c: f"--c{i}" for i, c in enumerate(used) if c != "#ffffff" and in_the_dark(c) != c}
    body = COLOUR.sub(lambda match: f"var({names[c]})" if (c := match[0].lower()) in names else match[0], body)
    light = "".join(f"{name}:{INK if colour == '#000000' else colour};" for colour, name in names.items())
    dark = "".join(f"{name}:{in_the_dark(colour)};" for colour, name in names.items())
    # A path without a colour of its own, as the letters, is drawn in that of the root.
    style = f"{{fill:{INK};{light}}}@media(prefers-color-scheme:dark){{svg{{fill:{in_the_dark('#000000')};{dark}}}}}"
    width, height = (float(side) for side in head.groups())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {head[1]} {head[2]}" width="{width * PIXELS_PER_POINT:.0f}" '
        f'height="{height * PIXELS_PER_POINT:.0f}">{STYLE}{style}</style>{body}'
    )


def prefer_drawings(app: Sphinx, config: Config) -> None:
    config.nb_mime_priority_overrides = [*config.nb_mime_priority_overrides, ("html", "image/svg+xml", 15)]


def theme_images(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    for file in Path(app.outdir, "_images").glob("*.svg"):
        svg = file.read_text(encoding="utf-8")
        if STYLE not in svg:  # else it was themed in an earlier build
            file.write_text(themed(svg), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", prefer_drawings)
    app.connect("build-finished", theme_images, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
