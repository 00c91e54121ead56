"""Number equations, figures, tables and exercises by chapter: the third equation of chapter 2 is (2.3).

Sphinx can do this only for chapters that it numbers itself, without gaps. Here a chapter carries its number in its
title ("2 · The forward transform"), and the running numbers restart in each such page. Other pages have no numbers in
common with a chapter: each counts its own from 1.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

CHAPTER_TITLE = re.compile(r"(\d+)\s*·")


def number_by_chapter(app: Sphinx, env: BuildEnvironment) -> list[str]:
    for docname, kinds in env.toc_fignumbers.items():
        chapter = CHAPTER_TITLE.match(env.titles[docname].astext())
        for numbers in kinds.values():
            for count, label in enumerate(numbers, start=1):
                numbers[label] = (int(chapter[1]), count) if chapter else (count,)
    return []


def setup(app: Sphinx) -> dict[str, bool]:
    # After Sphinx's own numbering, which listens to the same event at the default priority of 500.
    app.connect("env-get-updated", number_by_chapter, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
