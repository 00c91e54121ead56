"""Exercises can be linked to, and one page lists them all, made from the chapters while the book is built.

`{exercises} by-chapter` lists them under their chapters; `{exercises} by-level` is a table of what there is to do and
how hard it is. Both stand in `book/exercises.md`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise.nodes import exercise_subtitle, is_exercise_node

# As the chapters write it and tools/nb_guards.py checks it: "Derive · level 2".
LEVEL = re.compile(r"\b(?P<kind>derive|implement|experiment|diagnose)\b\W+level\W+(?P<level>[1-4])\b", re.IGNORECASE)

logger = logging.getLogger(__name__)


class Exercise(NamedTuple):
    document: str
    label: str
    number: str
    title: str
    kind: str
    level: int


class exercise_list(nodes.General, nodes.Element):
    """Where a list goes, until all chapters have been read."""


class ExerciseList(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        order = directives.choice(self.arguments[0], tuple(LISTS))
        self.env.metadata[self.env.docname]["lists exercises"] = "yes"
        return [exercise_list("", order=order)]


def exercises(env: BuildEnvironment) -> list[Exercise]:
    """All exercises of the book, in the order of its chapters."""
    found = []
    for label, entry in getattr(env, "sphinx_exercise_registry", {}).items():
        node, document = entry["node"], entry["docname"]
        if not is_exercise_node(node):
            continue
        match = LEVEL.search(node.astext())
        if match is None:
            logger.warning("exercise %s says no kind and level, as in 'Derive · level 2'", label, type="book_exercises")
            continue
        numbers = env.toc_fignumbers.get(document, {}).get("exercise", {}).get(label, ())
        number = ".".join(map(str, numbers))
        title = " ".join(part.astext() for part in node.findall(exercise_subtitle))
        found.append(Exercise(document, label, number, title, match["kind"].lower(), int(match["level"])))
    return sorted(found, key=lambda exercise: [int(part) for part in exercise.number.split(".")])


def _link(app: Sphinx, page: str, target: str, label: str, words: str) -> nodes.reference:
    uri = app.builder.get_relative_uri(page, target) + (f"#{label}" if label else "")
    return nodes.reference("", words, internal=True, refuri=uri)


def by_chapter(app: Sphinx, page: str, found: list[Exercise]) -> Iterator[nodes.Node]:
    """A line for each exercise, under its chapter."""
    for document, group in groupby(found, key=lambda exercise: exercise.document):
        chapter = _link(app, page, document, "", app.env.titles[document].astext())
        yield nodes.paragraph("", "", nodes.strong("", "", chapter))
        lines = nodes.bullet_list()
        for exercise in group:
            link = _link(app, page, document, exercise.label, f"{exercise.number} {exercise.title}")
            says = nodes.inline("", f" {exercise.kind}, level {exercise.level}", classes=["exercise-level"])
            lines += nodes.list_item("", nodes.paragraph("", "", link, says))
        yield lines


def by_level(app: Sphinx, page: str, found: list[Exercise]) -> Iterator[nodes.Node]:
    """A table: what there is to do, against how hard it is."""
    levels = sorted({exercise.level for exercise in found})
    cells: dict[tuple[str, int], list[Exercise]] = defaultdict(list)
    for exercise in found:
        cells[exercise.kind, exercise.level].append(exercise)
    rows = [["to do", *(f"level {level}" for level in levels)]]
    for kind in dict.fromkeys(exercise.kind for exercise in found):
        rows.append([kind, *(cells[kind, level] for level in levels)])
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in rows[0]), cols=len(rows[0]))
    for part, some in ((nodes.thead(), rows[:1]), (nodes.tbody(), rows[1:])):
        for row in some:
            part += nodes.row("", *(nodes.entry("", _cell(app, page, cell)) for cell in row))
        group += part
    yield nodes.table("", group, classes=["exercise-table"])


def _cell(app: Sphinx, page: str, cell: str | list[Exercise]) -> nodes.paragraph:
    if isinstance(cell, str):
        return nodes.paragraph("", cell)
    links = nodes.paragraph()
    for exercise in cell:
        links += [
            nodes.Text(" " if len(links) else ""),
            _link(app, page, exercise.document, exercise.label, exercise.number),
        ]
    return links


LISTS = {"by-chapter": by_chapter, "by-level": by_level}


def fill(app: Sphinx, doctree: nodes.document, page: str) -> None:
    places = list(doctree.findall(exercise_list))
    found = exercises(app.env) if places else []
    for place in places:
        place.replace_self(list(LISTS[place["order"]](app, page, found)))


def lists(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """The pages that list exercises, to be written anew whenever anything was read."""
    return [document for document, says in env.metadata.items() if "lists exercises" in says]


def add_permalinks(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """As headings have them."""
    icon = app.config.html_permalinks_icon
    for exercise in doctree.findall(is_exercise_node):
        link = f'<a class="headerlink" href="#{exercise["label"]}" title="Link to this exercise">{icon}</a>'
        exercise[0] += nodes.raw("", link, format="html")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("exercises", ExerciseList)
    app.add_node(exercise_list)
    app.connect("env-updated", lists)
    app.connect("doctree-resolved", fill)
    app.connect("doctree-resolved", add_permalinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
