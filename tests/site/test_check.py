"""The check of the built pages finds what it is there to find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import book_check
import book_katex
import pytest
import yaml
from sphinx.util.matching import Matcher

from tests.site.conftest import ROOT

PAGE = """<!DOCTYPE html><html lang="en"><head><title>One</title>
<link rel="stylesheet" href="../_static/site.css"><link rel="stylesheet" href="../_static/katex/katex.min.css">
<script src="../_static/site.js?v=1"></script></head>
<body><p>Costs $5 and <code>$$x$$</code> <a href="https://arxiv.org/abs/1502.03167">a paper</a></p>
<span class="katex"><math><annotation>\\frac12</annotation></math></span>
<img src="../_images/a.png" alt="A line that rises"></body></html>"""


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    for name in ("index.html", "search.html", "_static/site.js", "_static/katex/katex.min.css", "_images/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / "_static/site.css").write_text(
        'p { background: url("data:image/svg+xml,%3Csvg url(#a)") }', encoding="utf-8"
    )
    (tmp_path / "book").mkdir()
    (tmp_path / "book/one.html").write_text(PAGE, encoding="utf-8")
    return tmp_path


def test_a_good_site_has_no_problems(pages: Path) -> None:
    assert book_check.problems_of_site(pages, ["book/one"]) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("</body>", '<script src="https://cdn.example.org/x.js"></script></body>', "loads from outside"),
        ("</body>", '<script src="//cdn.example.org/x.js"></script></body>', "loads from outside"),
        ("</head>", '<link rel="stylesheet" href="http://fonts.example.org/a.css"></head>', "loads from outside"),
        ("</head>", "<style>@import 'https://fonts.example.org/a.css';</style></head>", "loads from outside"),
        ("<p>", '<p style="background:url(https://example.org/a.png)">', "loads from outside"),
        ("../_images/a.png", "https://example.org/a.png", "loads from outside"),
        ("<img src", '<img srcset="../_images/a.png 1x, https://example.org/b.png 2x" src', "loads from outside"),
        ("</body>", '<iframe src="https://example.org"></iframe></body>', "loads from outside"),
        ("../_images/a.png", "../_images/b.png", "not there"),
        ("A line that rises", "", "without alternative text"),
        ("A line that rises", "../_images/a.png", "without alternative text"),
        (' alt="A line that rises"', "", "without alternative text"),
        ("Costs $5", "Let $$x$$", "raw TeX"),
        ("Costs $5", r"Let \(x\)", "raw TeX"),
        ("Costs $5", r"Let $\mu_1$", "raw TeX"),
        ("Costs $5", r"\begin{align} x", "raw TeX"),
        ('class="katex"', 'class="katex-error"', "could not read"),
        ('<link rel="stylesheet" href="../_static/katex/katex.min.css">', "", "KaTeX's style sheet"),
        ("https://arxiv.org/abs/1502.03167", "https://github.com/OWNER/REPOSITORY", "invented address"),
    ],
)
def test_a_planted_fault_is_named(pages: Path, old: str, new: str, problem: str) -> None:
    assert old in PAGE
    (pages / "book/one.html").write_text(PAGE.replace(old, new, 1), encoding="utf-8")
    found = book_check.problems_of_site(pages, ["book/one"])
    assert len(found) == 1
    assert found[0].startswith("book/one.html: ")
    assert problem in found[0]


def test_missing_pages_and_fonts_from_outside_are_named(pages: Path) -> None:
    (pages / "index.html").unlink()
    (pages / "_static/site.css").write_text("@font-face { src: url('https://example.org/a.woff2') }", encoding="utf-8")
    found = book_check.problems_of_site(pages, ["book/one", "book/two"])
    assert found == [
        "index.html: was not built",
        "book/two.html: was not built",
        "_static/site.css: loads from outside: https://example.org/a.woff2",
    ]


def test_the_table_of_contents_is_read() -> None:
    documents = book_check.documents_of_toc(ROOT / "_toc.yml")
    assert "book/index" in documents and "book/bibliography" in documents


def build(source: Path, before: str = "", **pages: str) -> tuple[subprocess.CompletedProcess, Path]:
    """Build a small book with the book's own way of rendering, numbering and documenting."""
    (source / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
        "extensions = ['myst_parser', 'book_katex', 'book_numbers', 'sphinx.ext.autodoc', 'book_docstrings']\n"
        f"autodoc_mock_imports = ['torch', 'tensorflow', 'keras']\n{before}\n"
        "myst_enable_extensions = ['dollarmath']\nnumfig = True\nhtml_math_renderer = 'katex'\n",
        encoding="utf-8",
    )
    for name, text in pages.items():
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(source), str(source / "out")]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600), source / "out"


@pytest.mark.long
def test_formulas_are_rendered_and_numbered_by_chapter(tmp_path: Path) -> None:
    done, out = build(
        tmp_path,
        index="# Book\n\n```{toctree}\nseven\nplain\n```\n",
        seven="# 7 · Seven\n\nInline $\\sigma^2$.\n\n$$\na = b\n$$ (eq-a)\n\n"
        "$$\n\\begin{aligned}c &= d\\end{aligned}\n$$ (eq-c)\n",
        plain="# Plain\n\nAs in {eq}`eq-c`.\n",
    )
    assert done.returncode == 0, done.stderr
    seven, plain = (out / "seven.html").read_text(encoding="utf-8"), (out / "plain.html").read_text(encoding="utf-8")
    assert seven.count('<span class="katex">') == 3
    assert "<math" in seven and "katex.min.css" in seven
    assert "(7.1)" in seven and "(7.2)" in seven
    assert 'href="seven.html#equation-eq-c">(7.2)</a>' in plain
    assert "katex" not in plain
    assert (out / "_static/katex/fonts/KaTeX_Main-Regular.woff2").is_file()


def test_a_formula_that_cannot_be_read_fails_the_build(tmp_path: Path) -> None:
    done, _ = build(tmp_path, index="# Book\n\nGood $x$ and bad $\\varience + 1$.\n")
    assert done.returncode != 0
    assert "index.md" in done.stderr
    assert "\\varience + 1" in done.stderr and "Undefined control sequence" in done.stderr


@pytest.mark.parametrize("tex", [r"\unknown", r"\frac{1}", r"x & y", "中", r"\begin{aligned} x"])
def test_katex_refuses(tex: str) -> None:
    with pytest.raises(ValueError, match=r"KaTeX|LaTeX|Expected|Undefined|Unexpected"):
        book_katex.render(tex, display=True)


def test_what_is_not_in_the_contents_is_excluded_by_name() -> None:
    """Its extension looks for such files with a pattern of the folder's path, in which "[" and "]" find nothing."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    excluded = Matcher(["_build", *config["exclude_patterns"]])
    documents = set(book_check.documents_of_toc(ROOT / "_toc.yml"))
    left = []
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not excluded(str(here / name)) and not excluded(f"{here / name}/x")]
        left += [str(here / name) for name in files if name.endswith((".md", ".ipynb", ".rst"))]
    assert [name for name in left if name.rpartition(".")[0] not in documents and not excluded(name)] == []


HIDDEN = """
class Hidden:
    def find_spec(self, name, *more):
        if name.partition(".")[0] in autodoc_mock_imports:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.long
def test_the_api_page_is_the_same_with_and_without_pytorch(tmp_path: Path) -> None:
    modules = ("torch_mlp", "torch_statistics")  # what is documented of the first imports PyTorch before the second
    page = "# API\n" + "".join(
        f"\n```{{eval-rst}}\n.. automodule:: bnbook.models.{name}\n   :members:\n```\n" for name in modules
    )
    seen = []
    for name, before in (("with", ""), ("without", HIDDEN)):
        (tmp_path / name).mkdir()
        done, out = build(tmp_path / name, before, index=page)
        assert done.returncode == 0, done.stderr
        seen.append((out / "index.html").read_text(encoding="utf-8"))
    assert "GhostBatchNorm1d" in seen[0] and seen[0] == seen[1]
