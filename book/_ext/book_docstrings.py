"""Docstrings write maths and code as the chapters do, `$x$`, `$$x$$` and single backticks; autodoc reads reST."""

from __future__ import annotations

import re
import sys

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.ext.autodoc.mock import MockFinder

DISPLAY = re.compile(r"^(?P<indent>[ ]*)\$\$(?P<tex>.+?)\$\$(?P<after>[^\n]*)$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$(?P<tex>[^$\n]+(?:\n[^$\n]+)?)\$")
CODE = re.compile(r"(?<![`:\w])`(?P<code>[^`\n]+)`(?![`_\w])")


def to_rest(text: str) -> str:
    """Markdown's maths and code as reST roles and directives; everything else is left as it is."""

    def display(match: re.Match) -> str:
        indent, tex = match["indent"], " ".join(match["tex"].split())
        after = f"\n{indent}{match['after'].strip()}\n" if match["after"].strip(" .,;") else ""
        return f"\n{indent}.. math:: {tex}\n{after}"

    protected: list[str] = []

    def keep(role: str) -> str:
        protected.append(role)
        return f"\0{len(protected) - 1}\0"

    text = DISPLAY.sub(display, text)
    text = CODE.sub(lambda m: keep(f"``{m['code']}``"), text)
    text = INLINE.sub(lambda m: keep(f":math:`{' '.join(m['tex'].split())}`"), text)
    text = re.sub(r"(?<=[( ])\*(?=[,)])", r"\*", text)  # the star of a shape like (N, C, *)
    text = text.replace("|", r"\|")  # |x| would be a substitution
    # reST wants a role to end at a word's end: the escaped blank is not printed
    text = re.sub(r"\0(\d+)\0(?=\w)", "\0\\1\0\\\\ ", text)
    text = re.sub(r"(?<=\w)\0(\d+)\0", "\\\\ \0\\1\0", text)
    return re.sub(r"\0(\d+)\0", lambda m: protected[int(m[1])], text)


def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = to_rest("\n".join(lines)).split("\n")


def mock_throughout(app: Sphinx, config: Config) -> None:
    """The same page whether PyTorch is installed or not: autodoc's mocks hold only while it imports what it documents.

    Between that it imports modules to read their source, and with them what is there.
    """
    sys.meta_path.insert(0, MockFinder(config.autodoc_mock_imports))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", mock_throughout)
    # Before napoleon, which turns "Args:" into fields, at the default priority of 500.
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
