"""Make the figures of the built pages light: a palette of 256 colours instead of four full channels.

A figure has a few flat colours and the steps between them at its edges; with a palette it looks the same in less than
half the bytes. The pictures in the notebooks, which the tests compare, are left as they are.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from sphinx.application import Sphinx


def lighter(png: bytes) -> bytes:
    """The picture with a palette of at most 256 colours on white, or as it was where that is not smaller."""
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P":
        return png
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A") if "A" in picture.getbands() else None)
    reduced = io.BytesIO()
    flat.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(reduced, "PNG", optimize=True)
    return min(png, reduced.getvalue(), key=len)


def make_lighter(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    for file in Path(app.outdir, "_images").glob("*.png"):
        png = file.read_bytes()
        reduced = lighter(png)
        if len(reduced) < len(png):
            file.write_bytes(reduced)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", make_lighter, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
