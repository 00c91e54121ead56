"""The pictures among a notebook's outputs: small, described in words, and compared as a reader would see them.

A figure is stored as PNG, which is compared, and as SVG, which the pages show. ``nb_guards.check_notebook`` asks for
both, for their size and their words; ``conftest.py`` compares while nbval executes.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator

import numpy as np
from nb_prose import measured_numbers
from nbformat import NotebookNode

from bnbook.plotting import LARGE

MAX_BYTES_PER_PIXEL = 0.12  # of pictures that are `LARGE`, as a tall table with letters in every line
MAX_PICTURE_WIDTH = 1000  # pixels
PICTURE_DPI = 100
MIN_ALT_LENGTH = 20
PHONE = 390  # CSS pixels: there a figure is as wide as the window
MIN_LETTER = 9  # CSS pixels on a phone


def pictures(outputs: Iterable[NotebookNode]) -> list[bytes]:
    """The PNG files among the outputs of a cell."""
    return [
        base64.b64decode(output["data"]["image/png"])
        for output in outputs or []
        if "image/png" in (output.get("data") or {})
    ]


def drawings(outputs: Iterable[NotebookNode]) -> list[str]:
    """The SVG files among the outputs of a cell."""
    return [
        output["data"]["image/svg+xml"] for output in outputs or [] if "image/svg+xml" in (output.get("data") or {})
    ]


# A pixel differs clearly where a channel differs by more than 40 of 255. Measured on figures of 546 × 413 pixels:
# data that differ by a relative 1e-6 change no pixel clearly; a digit of a title changes 36, a dot of the smallest
# size 42, one of the default size 90, a word 250 and more. The share below is 7 pixels there.
CLEAR_STEP = 40
CLEAR_SHARE = 3e-5


def compare_pictures(stored: bytes, made: bytes) -> str | None:
    """How the second PNG clearly differs from the first, None where it does not."""
    a, b = _pixels(stored), _pixels(made)
    if a.shape != b.shape:
        return f"the stored picture has {a.shape[1]} × {a.shape[0]} pixels, the new one {b.shape[1]} × {b.shape[0]}"
    different = (np.abs(a - b) > CLEAR_STEP).any(axis=-1)
    if different.mean() > CLEAR_SHARE:
        rows, columns = np.nonzero(different)
        return (
            f"{different.sum()} of {different.size} pixels differ clearly, in rows {rows.min()}–{rows.max()} "
            f"and columns {columns.min()}–{columns.max()}"
        )
    return None


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
NAME = re.compile(r"\b[a-z][0-9a-f]{10}\b")  # matplotlib's, made of all digits of a path
MAX_SHIFT = 0.5  # points


def compare_drawings(stored: str, made: str) -> str | None:
    """How the second SVG differs from the first, in its elements or by a number; None where it does not."""
    parts = []
    for svg in (stored, made):
        names: dict[str, str] = {}
        svg = NAME.sub(lambda match: names.setdefault(match[0], f"name-{len(names)}"), svg)  # noqa: B023
        parts.append((NUMBER.split(svg), [float(number) for number in NUMBER.findall(svg)]))
    (words, numbers), (new_words, new_numbers) = parts
    if words != new_words:
        place = next((k for k, (a, b) in enumerate(zip(words, new_words, strict=False)) if a != b), -1)
        was, now = (side[place].strip()[:80] for side in (words, new_words))
        return f"the stored drawing has {was!r} where the new one has {now!r}"
    shift = max((abs(a - b) for a, b in zip(numbers, new_numbers, strict=True)), default=0.0)
    return f"numbers of the drawing differ by up to {shift:.3g}" if shift > MAX_SHIFT else None


def smallest_letter(svg: str) -> float:
    """The size of the smallest letters on a phone, in CSS pixels; matplotlib scales text by its size / 100."""
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1]) * PICTURE_DPI / 72
    sizes = [float(s) * 100 for s in re.findall(r'<g[^>]* transform="[^"]*scale\(([\d.]+) -[\d.]+\)', svg)]
    return min(sizes, default=np.inf) * PICTURE_DPI / 72 * min(1, PHONE / width)


def _pixels(png: bytes) -> np.ndarray:
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")  # a transparent picture is seen on the page
    return np.asarray(Image.alpha_composite(canvas, image).convert("RGB"), dtype=np.int16)


def check_pictures(nb: NotebookNode) -> Iterator[str]:
    """One small picture a cell, sharp on every display, with an alternative text that says what is seen in words."""
    for number, cell in enumerate(nb.cells):
        outputs = cell.get("outputs", [])
        found, drawn = pictures(outputs), drawings(outputs)
        if len(found) > 1:
            yield f"cell {number}: {len(found)} pictures share one alternative text: make one picture a cell"
        if len(drawn) != len(found):
            yield f"cell {number}: {len(found)} PNG and {len(drawn)} SVG: plotting.use_style() makes both of a figure"
        for png in found:
            yield from (f"cell {number}: {problem}" for problem in _check_png(png))
        for svg in drawn:
            if (size := smallest_letter(svg)) < MIN_LETTER:
                yield f"cell {number}: letters of {size:.1f} pixels on a phone, at least {MIN_LETTER} are asked for"
        if found:
            settings = cell.metadata.get("mystnb", {})
            alt = str(settings.get("image", {}).get("alt", "")).strip()
            if len(alt) < MIN_ALT_LENGTH or " " not in alt:
                yield f"cell {number}: the picture's alternative text mystnb.image.alt is {alt!r}, not a sentence"
            if numbers := measured_numbers(alt):
                yield f"cell {number}: {numbers[0]!r} in the alternative text: say shape and direction, not values"
            if numbers := measured_numbers(str(settings.get("figure", {}).get("caption", ""))):
                yield f"cell {number}: {numbers[0]!r} in the caption: numbers live in outputs"


def _check_png(png: bytes) -> Iterator[str]:
    from PIL import Image

    image = Image.open(io.BytesIO(png))
    most = max(LARGE, int(MAX_BYTES_PER_PIXEL * image.width * image.height))
    if len(png) > most:
        yield f"the picture has {len(png)} bytes, at most {most} are accepted"
    if image.width > MAX_PICTURE_WIDTH:
        yield f"the picture is {image.width} pixels wide, at most {MAX_PICTURE_WIDTH} accepted"
    if (dpi := image.info.get("dpi", (0,))[0]) > PICTURE_DPI + 0.5:  # stored as a whole number per metre
        yield f"the picture has {dpi:.0f} dots per inch, at most {PICTURE_DPI} are accepted"
