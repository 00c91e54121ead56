"""The figures of the built pages: drawings that follow the page's theme, photographs with a small palette.

A notebook stores a plot twice, as PNG, which the tests compare, and as matplotlib's SVG, which the pages show. A page
draws an SVG inside an <img>, where it cannot see the page's colours; but ``prefers-color-scheme`` inside it follows the
``color-scheme`` of the page, which the theme sets with its switch. So each colour of the drawing becomes a variable
with a light and a dark value.

What is stored as PNG alone (heat maps, photographs) gets a palette: a figure has a few flat colours and the steps
between them at its edges, and looks the same in less than half the bytes. The notebooks are left as they are.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image
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
PIXELS_PER_POINT = 100 / 72  # a drawing is as large as the PNG of 100 dpi

COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
NUMBER = re.compile(r"(?<![\w#.])-?\d+\.\d+(?:e-\d+)?")
NOISE = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
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


def _shorter(number: re.Match[str]) -> str:
    """Two decimals are a seventieth of a pixel; a factor below 1 keeps six, since it may scale all letters."""
    value = float(number[0])
    return f"{value:.{2 if abs(value) >= 1 else 6}f}".rstrip("0").rstrip(".").replace("-0.", "-.").removeprefix("+")


def themed(svg: str) -> str:
    """matplotlib's drawing on no ground, with colours that follow the page, in as few bytes as look the same."""
    svg = NUMBER.sub(_shorter, GROUND.sub(r"\1fill:none", NOISE.sub("", svg)))
    svg = re.sub(r"\s+", " ", svg).replace("> <", "><").replace("; ", ";").replace(": ", ":")
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
    style = f"svg{{fill:{INK};{light}}}@media(prefers-color-scheme:dark){{svg{{fill:{in_the_dark('#000000')};{dark}}}}}"
    width, height = (float(side) for side in head.groups())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {head[1]} {head[2]}" width="{width * PIXELS_PER_POINT:.0f}" '
        f'height="{height * PIXELS_PER_POINT:.0f}"><style>{style}</style>{body}'
    )


def lighter(png: bytes) -> bytes:
    """The picture with a palette of at most 256 colours on white, or as it was where that is not smaller."""
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P":
        return png
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A") if "A" in picture.getbands() else None)
    reduced = io.BytesIO()
    flat.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        reduced, "PNG", optimize=True, **({"dpi": picture.info["dpi"]} if "dpi" in picture.info else {})
    )
    return min(png, reduced.getvalue(), key=len)


def prefer_drawings(app: Sphinx, config: Config) -> None:
    config.nb_mime_priority_overrides = [*config.nb_mime_priority_overrides, ("html", "image/svg+xml", 15)]


def finish_images(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    images = Path(app.outdir, "_images")
    for file in images.glob("*.svg"):
        svg = file.read_text(encoding="utf-8")
        if "<metadata>" in svg:  # of matplotlib; what was themed in an earlier build has none
            file.write_text(themed(svg), encoding="utf-8")
    for file in images.glob("*.png"):
        png = file.read_bytes()
        reduced = lighter(png)
        if len(reduced) < len(png):
            file.write_bytes(reduced)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", prefer_drawings)
    app.connect("build-finished", finish_images, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
