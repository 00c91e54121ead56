"""Make the pages' text face: the letters that site.css names, out of Source Serif 4 (npm package ``source-serif``).

Needs fonttools and brotli. See ``book/_assets/static/fonts/README.md``.
"""

from __future__ import annotations

import re
import sys
import tarfile
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import instantiateVariableFont

STATIC = Path(__file__).parents[1] / "book" / "_assets" / "static"
# The name that the licence reserves may not be that of a part.
NAMES = {1: "Book Serif", 3: "BookSerif-{style}", 4: "Book Serif {style}", 6: "BookSerif-{style}", 16: "Book Serif"}
FACES = {
    "Roman": ("book-serif.woff2", {"opsz": 14, "wght": (400, 400, 700)}),
    "Italic": ("book-serif-italic.woff2", {"opsz": 14, "wght": 400}),
}


def letters() -> set[int]:
    css = (STATIC / "site.css").read_text(encoding="utf-8")
    ranges = re.findall(r"U\+([0-9A-F]+)(?:-([0-9A-F]+))?", re.search(r"unicode-range:(.*?);", css, re.S)[1])
    return {code for first, last in ranges for code in range(int(first, 16), int(last or first, 16) + 1)}


def make(archive: Path) -> None:
    options = Options(flavor="woff2", hinting=False, name_IDs=[0, *NAMES, 2, 5, 13, 14])
    options.layout_features = ["kern", "mark", "mkmk", "ccmp", "locl", "liga", "lnum", "tnum"]
    with tarfile.open(archive) as package:
        for style, (name, axes) in FACES.items():
            whole = TTFont(package.extractfile(f"package/VAR/SourceSerif4Variable-{style}.ttf"))
            font = instantiateVariableFont(whole, axes)
            subsetter = Subsetter(options)
            subsetter.populate(unicodes=letters())
            subsetter.subset(font)
            for record in font["name"].names:
                if record.nameID in NAMES:
                    record.string = NAMES[record.nameID].format(style=style)
            font.flavor = "woff2"
            font.save(STATIC / "fonts" / name)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: python tools/fonts.py source-serif-4.5.1.tgz (from `npm pack source-serif@4.5.1`)")
    make(Path(sys.argv[1]))
