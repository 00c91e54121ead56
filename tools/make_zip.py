"""Pack the built pages into one file, to give to somebody who has no network: unpack it and open index.html.

    python tools/make_zip.py        # after `make book`; `make zip` does both

The same pages give the same bytes: the order of the files, their times and their modes are fixed.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
OUT = BUILD / "batch-normalization.zip"
TOP = "batch-normalization"
LIMIT = 10_000_000  # what fits into a letter
# What no page loads: the theme's words in other languages, what another build, another book or a server would ask for.
LEFT_OUT = ("_static/locales/*", ".buildinfo", "objects.inv", "404.html")
EARLIEST = datetime.datetime(1980, 1, 1)  # that a zip can write


class BookError(Exception):
    """What is wrong, in one line."""


def committed() -> datetime.datetime | None:
    """Return when the book was last committed, in UTC; None where its history is not there."""
    try:
        log = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, encoding="utf-8")
    except FileNotFoundError:
        return None
    seconds = log.stdout.strip()
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC) if seconds else None


def pages_of(site: Path) -> list[Path]:
    """Return the files of the built pages, in a fixed order."""
    if not (site / "index.html").is_file():
        raise BookError(f"the pages are not built (there is no {site / 'index.html'}): make book")
    return sorted(path for path in site.rglob("*") if path.is_file())


def _with_a_palette(png: str) -> str:
    """A picture of a notebook in 256 colours, in base64: all that a plot has, at half the weight."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    made = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    return min(png, base64.b64encode(made.getvalue()).decode(), key=len)


def _without_drawings(notebook: Path) -> bytes:
    """The notebook that a page offers, with its figures as PNG alone: the SVG would be half of the weight."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("image/svg+xml", None)
            if "image/png" in data:
                data["image/png"] = _with_a_palette("".join(data["image/png"]))
    return json.dumps(content, ensure_ascii=False, indent=1).encode()


def make_zip(site: Path, out: Path) -> None:
    """Pack the built pages in ``site``."""
    files = pages_of(site)
    time = (committed() or EARLIEST).timetuple()[:6]
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in files:
            name = file.relative_to(site).as_posix()
            if not any(fnmatch(name, pattern) for pattern in LEFT_OUT):
                entry = zipfile.ZipInfo(f"{TOP}/{name}", time)
                entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
                archive.writestr(entry, _without_drawings(file) if file.suffix == ".ipynb" else file.read_bytes())
    unfinished.replace(out)
    if (size := out.stat().st_size) > LIMIT:
        raise BookError(f"{out} has {size / 1e6:.1f} MB, more than the {LIMIT / 1e6:.0f} MB that it may have")


if __name__ == "__main__":
    try:
        make_zip(BUILD / "html", OUT)
        print(f"{OUT}: {OUT.stat().st_size / 1e6:.1f} MB")
    except BookError as error:
        sys.exit(f"make_zip: {error}")
