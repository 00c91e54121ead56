"""The README says what is true of the repository."""

import base64
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_picture_is_the_one_that_the_first_page_made():
    cells = json.loads((ROOT / "book/index.ipynb").read_text(encoding="utf-8"))["cells"]
    pictures = [o["data"]["image/png"] for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert (ROOT / "book/_assets/xray.png").read_bytes() == base64.b64decode(pictures[0]), (
        "save the picture of book/index.ipynb as book/_assets/xray.png"
    )


def test_every_target_of_the_makefile_is_described():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    assert targets
    assert [t for t in targets if f"`make {t}`" not in README] == []


def test_the_map_of_the_tree_names_what_is_there():
    tree = re.search(r"## The tree\s+```\n(.*?)```", README, re.DOTALL)[1]
    folder, missing = "", []
    for line in tree.splitlines():
        indent, names = re.match(r"( *)((?:[\w./]+ )*[\w./]+?)(?:  |$)", line).groups()
        for name in names.split():
            path = ROOT / (folder if indent else "") / name
            if not path.exists():
                missing.append(str(path.relative_to(ROOT)))
        if not indent:
            folder = names
    assert missing == []


def test_every_chapter_is_listed():
    chapters = [re.match(r"(\d\d)_", p.name) for p in (ROOT / "book").glob("*.ipynb")]
    numbers = sorted(int(m[1]) for m in chapters if m)
    table = re.search(r"## What is in it(.*?)## ", README, re.DOTALL)[1]
    assert numbers == sorted(int(n) for n in re.findall(r"(?:\| |· )(\d+) ", table))
