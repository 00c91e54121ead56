"""Put a live figure into the place of its picture, and load its script where it is used and nowhere else.

`bnbook.plotting.live(NAME)` leaves <live-NAME> in the output of a cell. Its script is book/_assets/live/NAME.js; the
base that all of them need is live.js and live.css beside it. The folder is not in html_static_path, from which Jupyter
Book would load every script on every page.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import myst_nb.sphinx_
from docutils import nodes
from myst_nb.core.render import create_figure_context
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

FIGURES = Path(__file__).parents[1] / "_assets" / "live"
WITHOUT_A_PICTURE = ("bet", "bets")  # they may stand before printed results, or alone
ELEMENT = re.compile(r"<live-([a-z]+)")

logger = logging.getLogger(__name__)


@contextmanager
def figure_of_first_output(renderer: Any, options: dict[str, Any] | None, line: int) -> Iterator[None]:
    """Caption and number belong to the picture; myst-nb would give the live figure behind it the same once more."""
    first = getattr(renderer, "line_of_figure", None) != line
    renderer.line_of_figure = line
    with create_figure_context(renderer, options if first else None, line):
        yield


class PlaceFigures(SphinxPostTransform):
    """Move the element from behind the captioned picture to before its caption, and mark the place.

    A browser that draws while the page still arrives then keeps the room from the first moment.
    """

    default_priority = 5  # after myst-nb has chosen between the forms of an output
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for output in list(self.document.findall(nodes.raw)):
            element = ELEMENT.search(output.astext())
            if not element:
                continue
            figure = next(iter(output.parent.findall(nodes.figure)), None)
            if figure is None and element[1] in WITHOUT_A_PICTURE:
                continue
            if figure is None:
                logger.warning("%s has no captioned picture in its cell", element[0], location=output, type="book_live")
                continue
            output.parent.remove(output)
            output["classes"] = []  # else it is wrapped as an output
            figure.insert(figure.first_child_matching_class(nodes.caption) or len(figure), output)
            figure["classes"] += ["live-place", f"live-place-{element[1]}"]


def copy_figures(app: Sphinx) -> None:
    if app.builder.format == "html":
        shutil.copytree(FIGURES, Path(app.outdir, "_static", "live"), dirs_exist_ok=True)


def load_figures(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    names = dict.fromkeys(ELEMENT.findall(context.get("body", "")))
    if not names:
        return
    app.add_css_file("live/live.css")
    app.add_js_file("live/live.js", loading_method="defer")
    for name in names:
        if not (FIGURES / f"{name}.js").is_file():
            logger.warning("no script %s.js for <live-%s>", name, name, location=pagename, type="book_live")
            continue
        app.add_js_file(f"live/{name}.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    myst_nb.sphinx_.create_figure_context = figure_of_first_output
    app.add_post_transform(PlaceFigures)
    app.connect("builder-inited", copy_figures)
    app.connect("html-page-context", load_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
