"""The pictures among a notebook's outputs: small, described in words, and compared as a reader would see them.

``nb_guards.check_notebook`` asks for the first two; ``conftest.py`` compares while nbval executes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator

import numpy as np
from nb_prose import measured_numbers
from nbformat import NotebookNode

MAX_PICTURE_BYTES = 80_000
MAX_BYTES_PER_PIXEL = 0.3  # of those that are larger than most, as a tall table with letters in every line
MAX_PICTURE_WIDTH = 1000  # pixels
MAX_PICTURE_DPI = 100
MIN_ALT_LENGTH = 20


def pictures(outputs: Iterable[NotebookNode]) -> list[bytes]:
    """The PNG files among the outputs of a cell."""
    return [
        base64.b64decode(output["data"]["image/png"])
        for output in outputs or []
        if "image/png" in (output.get("data") or {})
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


def _pixels(png: bytes) -> np.ndarray:
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")  # a transparent picture is seen on the page
    return np.asarray(Image.alpha_composite(canvas, image).convert("RGB"), dtype=np.int16)


def check_pictures(nb: NotebookNode) -> Iterator[str]:
    """One small PNG a cell, with an alternative text that says what is seen in words."""
    from PIL import Image

    for number, cell in enumerate(nb.cells):
        found = pictures(cell.get("outputs", []))
        if len(found) > 1:
            yield f"cell {number}: {len(found)} pictures share one alternative text: make one picture a cell"
        for png in found:
            image = Image.open(io.BytesIO(png))
            most = max(MAX_PICTURE_BYTES, int(MAX_BYTES_PER_PIXEL * image.width * image.height))
            if len(png) > most:
                yield f"cell {number}: the picture has {len(png)} bytes, at most {most} are accepted"
            if image.width > MAX_PICTURE_WIDTH:
                yield f"cell {number}: the picture is {image.width} pixels wide, at most {MAX_PICTURE_WIDTH} accepted"
            if (dpi := image.info.get("dpi", (0,))[0]) > MAX_PICTURE_DPI + 0.5:  # stored as a whole number per metre
                yield f"cell {number}: the picture has {dpi:.0f} dots per inch, at most {MAX_PICTURE_DPI} are accepted"
        if found:
            settings = cell.metadata.get("mystnb", {})
            alt = str(settings.get("image", {}).get("alt", "")).strip()
            if len(alt) < MIN_ALT_LENGTH or " " not in alt:
                yield f"cell {number}: the picture's alternative text mystnb.image.alt is {alt!r}, not a sentence"
            if numbers := measured_numbers(alt):
                yield f"cell {number}: {numbers[0]!r} in the alternative text: say shape and direction, not values"
            if numbers := measured_numbers(str(settings.get("figure", {}).get("caption", ""))):
                yield f"cell {number}: {numbers[0]!r} in the caption: numbers live in outputs"
