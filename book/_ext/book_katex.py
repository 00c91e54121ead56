"""Render the book's formulas with KaTeX while the pages are built.

The reader's browser gets finished HTML (with MathML beside it for screen readers) and no maths script. KaTeX, kept in
``_assets/katex``, runs in V8 inside this Python process (package ``mini-racer``). A formula that KaTeX does not
understand is a warning that names the page and the formula, and so fails a build with ``-W``.
"""

from __future__ import annotations

import atexit
import functools
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from py_mini_racer import JSEvalException, MiniRacer
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

KATEX = Path(__file__).parents[1] / "_assets" / "katex"
# "strict": what LaTeX or MathJax (which shows the same notebook in JupyterLab) would read differently is an error too.
OPTIONS = {"throwOnError": True, "strict": "error", "output": "htmlAndMathml"}
RENDERED = 'class="katex"'
PUNCTUATION = re.compile(r"[.,;:!?)’”\]]+")
SHORT = 30  # characters of TeX; a longer formula must be able to break over lines itself

logger = logging.getLogger(__name__)


@functools.cache
def _v8() -> MiniRacer:
    v8 = MiniRacer()
    atexit.register(v8.close)  # left to the interpreter's own end, its thread can keep the process from ending
    v8.eval((KATEX / "katex.min.js").read_text(encoding="utf-8") + ";0")
    return v8


@functools.cache
def render(tex: str, display: bool = False) -> str:
    """Return the HTML of a formula; raise `ValueError` with KaTeX's message when it cannot be read."""
    options = json.dumps(OPTIONS | {"displayMode": display})
    try:
        return _v8().eval(f"katex.renderToString({json.dumps(tex)}, {options})")
    except JSEvalException as error:
        reason = re.search(r"(?:ParseError|Error): (.*)", str(error))
        underlined = reason.group(1) if reason else str(error)
        raise ValueError(underlined.replace("\N{COMBINING LOW LINE}", "")) from None


def _render_or_warn(node: nodes.Element, display: bool) -> str:
    tex = node.astext()
    try:
        return render(tex, display)
    except ValueError as error:
        logger.warning("KaTeX cannot read the formula %s: %s", tex, error, location=node, type="katex")
        return f'<code class="katex-error">{html.escape(tex)}</code>'


def visit_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(translator.starttag(node, "span", "", CLASS="math notranslate nohighlight"))
    translator.body.append(_render_or_warn(node, display=False) + "</span>")
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    translator.body.append(f'<div class="equation">{_render_or_warn(node, display=True)}</div>')
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise nodes.SkipNode


class KeepPunctuation(SphinxPostTransform):
    """Hold a short formula and the punctuation behind it together: a browser may break the line between them."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        for formula in list(self.document.findall(nodes.math)):
            text = formula.next_node(descend=False, siblings=True)
            mark = PUNCTUATION.match(text) if isinstance(text, nodes.Text) else None
            if mark and len(formula.astext()) <= SHORT:
                together = nodes.inline("", "", formula.deepcopy(), nodes.Text(mark[0]), classes=["nobreak"])
                place = next(i for i, node in enumerate(formula.parent) if node is formula)  # texts may be equal
                formula.parent[place] = together
                formula.parent[place + 1] = nodes.Text(text[mark.end() :])


def add_stylesheet(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document) -> None:
    """Load KaTeX's style sheet (and with it the fonts a page uses) only where there is a formula."""
    if RENDERED in context.get("body", ""):
        app.add_css_file("katex/katex.min.css")


def copy_stylesheet(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "katex")
    shutil.copytree(KATEX / "fonts", target / "fonts", dirs_exist_ok=True)
    shutil.copy(KATEX / "LICENSE", target)
    # Only woff2 is served: every browser that shows these pages reads it.
    style = (KATEX / "katex.min.css").read_text(encoding="utf-8")
    style = re.sub(r',url\([^)]*\.(?:woff|ttf)\) format\("\w+"\)', "", style)
    (target / "katex.min.css").write_text(style, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(KeepPunctuation)
    app.add_html_math_renderer("katex", (visit_math, None), (visit_math_block, None))
    app.connect("builder-inited", copy_stylesheet)
    app.connect("html-page-context", add_stylesheet)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
