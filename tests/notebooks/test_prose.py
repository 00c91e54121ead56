"""Rule 2 of the book: numbers live in outputs, not in the words around them."""

from __future__ import annotations

from pathlib import Path

import nb as tool
import nb_prose as prose
import pytest

PAGES = sorted(
    path
    for path in tool.BOOK.rglob("*.md")
    if not any(part.startswith(("_", ".")) for part in path.relative_to(tool.BOOK).parts)
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages(path: Path) -> None:
    problems = prose.check_page(path)
    assert not problems, "\n".join([f"{path.name}:", *problems])


@pytest.mark.parametrize("path", tool.notebooks(), ids=lambda path: path.name)
def test_notebooks(path: Path) -> None:
    problems = list(prose.check_words(tool.read(path)))
    assert not problems, "\n".join([f"{path.name}:", *problems])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The accuracy is 0.91.", ["0.91"]),
        ("It loses 12 % of it.", ["12 %"]),
        ("It loses 3% or 4.5 percent.", ["4.5", "3%", "4.5 percent"]),
        ("from −1.5 to .5", ["−1.5", ".5"]),
        ("- a list with 1.5 or 2.5e3 or 3.5×", ["1.5", "2.5", "3.5"]),
        ("| a | 2.5 |", ["2.5"]),
        ("# A title with 1.5", ["1.5"]),
        ("```{note} Title 1.5\n:class: tip\nbody 2.5\n```\nafter 3.5", ["1.5", "2.5", "3.5"]),
        (":::{admonition} Title\nbody 2.5\n:::", ["2.5"]),
        ("````{exercise} Mean\n:label: ex-1.5\n\n```{math}\n1.25\n```\n\nbody 2.5\n````\n3.5", ["2.5", "3.5"]),
        ("```python\n1.5\n```\n2.5", ["2.5"]),
        ("$a$ costs 1.5 and $b$", ["1.5"]),
        ("`a` costs 1.5 and `b`", ["1.5"]),
        ("{term}`a` costs 1.5", ["1.5"]),
        ("[1.5](https://example.org/2.5)", ["1.5"]),
        ("```{figure} a.png\n:width: 62.5%\n:alt: It rises to 1.5\n\nThe caption says 2.5\n```", ["1.5", "2.5"]),
        ("cited {cite}`a`.\nNot cited: 1.5.", ["1.5"]),
        ("Python 1.5 times 2.5", ["2.5"]),
    ],
)
def test_lint_finds(text: str, found: list[str]) -> None:
    assert sorted(number for _, number in prose.prose_problems(text)) == sorted(found)


@pytest.mark.parametrize(
    "text",
    [
        "Version 1.2.3, two, 3 and 10,000 of 1,000; chapter 4; 28×28; 3–5; v2; x1.",
        "1. first\n2. second. 3. third",
        "$x = 1.5$ and $$\n0.25\n$$ and\n\\begin{align}\n1.5\n\\end{align}",
        "$a\n= 1.5$ goes on",
        "`0.1`, {math}`0.5`, ``a`1.5``",
        "```{math}\n:label: eq-a\n1.5 \\%\n```",
        "```{code-block} python\n1.5\n```",
        "~~~\n1.5\n~~~",
        "Reported 4.9 % error {cite}`ioffe2015`.",
        "```{figure} a_1.5.png\n:width: 62.5%\nWords.\n```",
        "[paper](https://arxiv.org/abs/1502.03167) https://arxiv.org/abs/1502.03167 <https://a.org/1.5>",
        "![x](a_1.5.png)",
        '<img src="a.png" style="width: 62.5%">',
        "Python 3.11, PyTorch 2.6 and NumPy 1.26 to 2.4; CC BY 4.0",
        "§ 3.1 and section 4.2",
        "the 95 % t-interval, a 95% confidence interval",
        "<!-- 1.5 -->",
        "---\ntitle: 1.5\n---\ntext",
    ],
)
def test_lint_accepts(text: str) -> None:
    assert prose.prose_problems(text) == []


def test_lint_gives_the_line() -> None:
    assert prose.prose_problems("$$\na\n$$\n\n```{note}\nis 1.5\n```") == [(6, "1.5")]


def test_a_chapter_that_does_not_exist_is_called_planned(monkeypatch) -> None:
    monkeypatch.setattr(prose, "CHAPTERS", {1, 2})
    assert not list(
        prose.chapter_problems("Chapter 1, [chapter 2](02.ipynb) and chapter 3 (planned), chapters 1 and 2.")
    )
    for wrong in ("as chapter 3 shows", "Chapter 1 (planned)", "chapters 3 and 1"):
        assert len(list(prose.chapter_problems(wrong))) == 1, wrong
