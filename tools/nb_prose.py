"""The numbers in the words: rule 2 of the book, numbers live in outputs; and the chapters that the words cite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

DECIMAL = re.compile(r"(?<![\w.])[-−+]?\d+\.\d++(?!\.\d)|(?<![\w.])\.\d+\b")
PERCENT = re.compile(r"\d[\d.]*\s*(?:%|percent\b|per cent\b)")
EXCEPTIONS = (
    r"\b(?:Python|PyTorch|torch|NumPy|SciPy|Keras|TensorFlow|CUDA|ONNX|Jupyter Book|JupyterLab|CC BY(?:-SA)?|Apache)"
    r"(?:[ -]?v?\d+(?:\.\d+)*\+?)(?:(?:,| to| and| or|–|-)\s*\d+(?:\.\d+)+)*",  # versions, licences
    r"(?:§|[Ss]ections?|[Cc]hapters?|[Ee]quations?|[Ff]igures?|[Tt]ables?|[Aa]lgorithms?)\s*\d+(?:\.\d+)+",
    r"\b9[059]\s?%(?=[\s-]*(?:\w+[\s-]+){0,2}(?:intervals?|confidence|level))",  # the convention, not a result
)
_EXEMPT = re.compile(
    "|".join(
        [
            r"\$\$.*?\$\$",  # maths
            r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}",
            r"(?<!\\)\$(?:\\.|[^$\n\\]|\n(?!\n))+\$",
            r"(?<!`)(`+)(?!`)(?:(?!\n\n).)+?(?<!`)\2(?!`)",  # code spans and roles
            r"<!--.*?-->",
            r"<[a-zA-Z/][^>\n]*>",  # HTML tags, addresses
            r"(?<=\])\([^)\n]*\)",  # targets of links and pictures
            r"\bhttps?://\S+",
            *EXCEPTIONS,
        ]
    ),
    re.DOTALL,
)
CHAPTERS = {int(page.name[:2]) for page in (Path(__file__).parents[1] / "book").glob("[0-9][0-9]_*.ipynb")}
CHAPTER = re.compile(r"\b[Cc]hapters? (\d+)\b( \(planned\))?")
CITATION = re.compile(r"\{cite(?::\w+)?\}|\{footcite(?::\w+)?\}")
FENCE = re.compile(r"^\s*(?:>\s*)*(?:[-*]\s+)?(`{3,}|~{3,}|:{3,})\s*(\{[\w:-]+\})?(.*)$")
CODE_DIRECTIVES = {
    "math",
    "code",
    "code-block",
    "code-cell",
    "literalinclude",
    "mermaid",
    "raw",
    "bibliography",
}
OPTION = re.compile(r"^\s*:(?!alt:)[\w-]+:.*$")


def measured_numbers(text: str) -> list[str]:
    """The decimals and percentages of a piece of Markdown that are not maths, code or a known exception."""
    text = _EXEMPT.sub(lambda match: "\n" * match[0].count("\n") + "`", text)
    return [match[0] for pattern in (DECIMAL, PERCENT) for match in pattern.finditer(text)]


def prose_problems(text: str) -> list[tuple[int, str]]:
    """(line number, number) for each measured number in the Markdown ``text``: rule 2, numbers live in outputs.

    Exempt are maths, code, lines that cite, options of directives and ``EXCEPTIONS``.
    """
    lines = text.splitlines()
    if lines and lines[0] == "---" and "---" in lines[1:]:  # front matter
        end = lines.index("---", 1)
        lines[: end + 1] = [""] * (end + 1)
    fences: list[tuple[str, bool]] = []  # open fences: (marker, holds code)
    for number, line in enumerate(lines):
        match = FENCE.match(line)
        if match and fences and line.strip().strip(match[1][0]) == "" and len(match[1]) >= len(fences[-1][0]):
            if match[1][0] == fences[-1][0][0]:
                fences.pop()
                lines[number] = ""
                continue
        if fences and fences[-1][1]:
            lines[number] = ""
        elif match and (match[1][0] == ":" or "`" not in match[3]):
            directive = (match[2] or "").strip("{}")
            holds_code = directive in CODE_DIRECTIVES or (not directive and match[1][0] != ":")
            fences.append((match[1], holds_code))
            lines[number] = "" if holds_code or directive in ("figure", "image") else match[3]  # a title is prose
        elif CITATION.search(line) or (fences and OPTION.match(line)):
            lines[number] = ""
    blanked = _EXEMPT.sub(lambda match: "\n" * match[0].count("\n") + "`", "\n".join(lines))
    return [
        (number, match[0])
        for number, line in enumerate(blanked.split("\n"), start=1)
        for pattern in (DECIMAL, PERCENT)
        for match in pattern.finditer(line)
    ]


def chapter_problems(text: str) -> Iterator[str]:
    """The chapters that are cited as if they existed, and those that exist and are called planned."""
    for cited in CHAPTER.finditer(text):
        if (int(cited[1]) in CHAPTERS) == bool(cited[2]):
            yield f"{cited[0]!r}: only a chapter that does not exist yet is '(planned)'"


def _problems(text: str) -> Iterator[str]:
    for line, found in prose_problems(text):
        yield f"line {line}: {found!r}: let an output say it, or write maths or code"
    yield from chapter_problems(text)


def check_words(nb: NotebookNode) -> Iterator[str]:
    """The measured numbers that stand in Markdown cells, and the chapters that they cite."""
    for number, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown":
            for problem in _problems(cell.source):
                yield f"cell {number}, {problem}"


def check_page(path: Path) -> list[str]:
    """The same of a Markdown page."""
    return list(_problems(path.read_text(encoding="utf-8")))
