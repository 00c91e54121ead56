"""What nbval does not see: static guards over the form, the code, the outputs and the exercises of executed notebooks.

``check_notebook`` returns one line for each problem, also of the pictures (``nb_pictures``) and the words
(``nb_prose``); ``tools/nb.py check`` prints them and ``tests/notebooks/test_notebooks.py`` fails on them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

import nbformat
from nb_pictures import check_pictures
from nb_prose import check_words
from nb_times import FOLDED, minutes, time_line, visible_lines, words
from nbformat import NotebookNode

MAX_NOTEBOOK_BYTES = 2_000_000
MIN_EXERCISES = 4
MAX_READING_MINUTES, MAX_MINUTES_WITH_CODE = 25, 45
MAX_VISIBLE_LINES = 25  # of a cell that is not folded
MAX_FIRST_WORDS = 60  # between the title and the first figure

KINDS = ("derive", "implement", "experiment", "diagnose")
OPENING = ("**You will learn**", "**You need**", "**Time**")
SECTIONS = ("Remember", "Exercises", "Further reading")
CHAPTER = re.compile(r"(\d\d)_\w+(\.student)?\.ipynb")
TRAINED = "nbval-ignore-output"  # tag of cells whose outputs differ between processors
FORBIDDEN_TAGS = {"nbval-skip", "nbval-check-output", "pytest-validate-ignore-output"}
METADATA = {"tags", "mystnb", "jupyter"}

ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+|\b0x[0-9a-fA-F]{9,16}\b")
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|root|tmp|Users|private|work|usr/(?:local/)?lib)/\w[^\s'\"]*"
    r"|\b[A-Z]:\\\\?Users\b[^\s'\"]*|\bsite-packages\b|\bipykernel_\d+"
)
MAGIC = re.compile(r"^\s*(?:[%!]|\w+\s*=\s*[%!])", re.MULTILINE)
NBVAL_COMMENT = re.compile(r"^\s*#+\s*(?:NBVAL|PYTEST_VALIDATE)_\w+", re.MULTILINE)
EXERCISE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{exercise\}", re.MULTILINE)
LABEL = re.compile(r"^:label:\s*(\S+)\s*$", re.MULTILINE)
_KIND = rf"(?P<kind>{'|'.join(KINDS)})"
LEVEL = re.compile(rf"\b{_KIND}\b\W+level\W+(?P<level>[1-4])\b", re.IGNORECASE)
GATED = re.compile(r"\{(?:exercise|solution)-(?:start|end)\}|\{glue(?::\w+)?\}")


# Reading a notebook


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def parse(cell: NotebookNode) -> ast.Module | None:
    """The syntax tree of a code cell, None where it is not plain Python."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return None


def has_assert(cell: NotebookNode) -> bool:
    """Whether the cell asserts something when it runs: ``assert`` or a function of ``numpy.testing``.

    An ``assert`` inside a function that is only defined does not count, nor does one about a constant.
    """
    tree = parse(cell)
    return tree is not None and any(map(_asserts, _executed(tree)))


def _asserts(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return not _decided(node.test)
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name.startswith("assert_")
    return False


def _decided(test: ast.expr) -> bool:
    """Whether a condition is decided by what is written: a constant, a pair in brackets, `True or x`."""
    if isinstance(test, ast.BoolOp):
        return any(map(_decided, test.values))
    return isinstance(test, ast.Constant | ast.Tuple)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below ``node`` that run with it: not the bodies of functions and classes."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield child
            yield from _executed(child)


def output_texts(cell: NotebookNode) -> Iterator[str]:
    """Every textual output of a code cell."""
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield "\n".join([output.ename, output.evalue, *output.traceback])
        else:
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/") or kind == "image/svg+xml":
                    yield data


def final_check(cell: NotebookNode) -> str | None:
    """The name in ``check("ch02.name", …)`` where that call is the last statement of the cell, else None."""
    tree = parse(cell)
    last = tree.body[-1] if tree and tree.body else None
    call = last.value if isinstance(last, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check" and call.args:
        first = call.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return first.value
    return None


def import_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells that only import (and call, as in ``use_style()``)."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and _is_import(cell)]


def _is_import(cell: NotebookNode) -> bool:
    tree = parse(cell)
    return (
        tree is not None
        and any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body)
        and all(
            isinstance(node, (ast.Import, ast.ImportFrom))
            or (isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Constant)))
            for node in tree.body
        )
    )


# Guards over one notebook


def check_notebook(nb: NotebookNode, name: str, size: int | None = None) -> list[str]:
    """Every problem of the executed notebook ``nb`` with file name ``name`` and ``size`` bytes, one line each."""
    problems = [*check_form(nb, size), *check_outputs(nb), *check_pictures(nb), *check_code(nb), *check_trained(nb)]
    problems += [f"prose: {problem}" for problem in check_words(nb)]
    if match := CHAPTER.fullmatch(name):
        problems += [*check_first_screen(nb), *check_lengths(nb), *check_sections(nb)]
        problems += check_exercises(nb, f"ch{match[1]}")
    return problems


def _code(nb: NotebookNode) -> list[tuple[int, NotebookNode]]:
    return [(number, cell) for number, cell in enumerate(nb.cells) if cell.cell_type == "code"]


def check_form(nb: NotebookNode, size: int | None = None) -> Iterator[str]:
    """Valid, small, executed in order, for the kernel ``python3``, with the metadata of the book only."""
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        yield f"not a valid notebook: {error.args[0]}"
    if size is not None and size >= MAX_NOTEBOOK_BYTES:
        yield f"the file has {size} bytes, at most {MAX_NOTEBOOK_BYTES} are accepted"
    kernel = nb.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"the kernel is {kernel!r}, not 'python3'"
    counts = [cell.execution_count for _, cell in _code(nb)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the execution counts are {counts}, not 1 to {len(counts)}: was every cell run, once, in order?"
    for number, cell in enumerate(nb.cells):
        if extra := set(cell.metadata) - METADATA:
            yield f"cell {number}: metadata {sorted(extra)} is not of the book (run tools/nb.py)"
        if "id" not in cell:
            yield f"cell {number} has no id"
        if forbidden := FORBIDDEN_TAGS & {tag.lower() for tag in tags(cell)}:
            yield f"cell {number}: the tag {sorted(forbidden)[0]!r} would switch a comparison off"


def check_outputs(nb: NotebookNode) -> Iterator[str]:
    """No error that is not meant, no stderr, no memory address, no path of the machine the outputs were made on."""
    for number, cell in _code(nb):
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"cell {number}: stored error {output.ename}: {output.evalue}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"cell {number}: stored stderr {output.text[:80]!r}"
        for text in output_texts(cell):
            if match := ADDRESS.search(text):
                yield f"cell {number}: memory address {match[0]!r} in the output"
            if match := MACHINE_PATH.search(text):
                yield f"cell {number}: path of this machine {match[0]!r} in the output"
    for number, cell in enumerate(nb.cells):
        if match := MACHINE_PATH.search(cell.source):
            yield f"cell {number}: path of this machine {match[0]!r} in the source"


def check_code(nb: NotebookNode) -> Iterator[str]:
    """Plain Python that runs anywhere: the first cell imports, no magics, no path tricks, no markers in comments."""
    code = _code(nb)
    if code and not _is_import(code[0][1]):
        yield f"cell {code[0][0]}: the first code cell must only import (and call, as in use_style())"
    for number, cell in code:
        if match := MAGIC.search(cell.source):
            line = cell.source[match.start() :].strip().splitlines()[0]
            yield f"cell {number}: {line!r} is a magic or a shell command, not Python"
        elif parse(cell) is None and "raises-exception" not in tags(cell):
            yield f"cell {number} is not Python"
        if re.search(r"\bsys\.path\b", cell.source):
            yield f"cell {number}: no tricks with sys.path, bnbook is installed"
        if match := NBVAL_COMMENT.search(cell.source):
            yield f"cell {number}: use a tag instead of the comment {match[0].strip()!r}, which readers would see"
    # What only a solution defines is missing for a learner who has not solved the exercise.
    given: set[str] = set()
    solved: set[str] = set()
    for number, cell in code:
        tree = parse(cell)
        if tree is None:
            continue
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        defined = _defined(tree)
        if "solution" in tags(cell):
            solved |= defined
        else:
            if missing := sorted((names & solved) - given - defined):
                yield f"cell {number} needs {missing[0]!r}, which only a solution defines"
            given |= defined


def _defined(tree: ast.Module) -> set[str]:
    """The names that a cell gives to the notebook."""
    names = set()
    for node in _with_definitions(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
    return names


def _with_definitions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _with_definitions(child)


def check_trained(nb: NotebookNode) -> Iterator[str]:
    """A cell whose output is not compared asserts what the text says of it, itself or in the next code cell."""
    code = _code(nb)
    for (number, cell), (_, following) in zip(code, [*code[1:], (None, None)], strict=True):
        if TRAINED in tags(cell) and not has_assert(cell) and not (following is not None and has_assert(following)):
            yield f"cell {number} is tagged {TRAINED} but neither it nor the next code cell asserts anything"


def count_trained(nb: NotebookNode) -> int:
    """How many cells of the notebook are executed without a comparison of their outputs."""
    return sum(TRAINED in tags(cell) for _, cell in _code(nb))


def check_first_screen(nb: NotebookNode) -> Iterator[str]:
    """Title and a sentence, the folded imports, the figure (or table): what a reader sees before scrolling."""
    kinds = [cell.cell_type for cell in nb.cells[:4]]
    if kinds != ["markdown", "code", "code", "markdown"]:
        yield f"the first cells are {kinds}: title and sentence, imports, figure, then words"
        return
    title, imports, figure, _ = nb.cells[:4]
    if not title.source.startswith("# ") or words(title.source) > MAX_FIRST_WORDS or ":::" in title.source:
        yield f"the first cell is not a title and a sentence of at most {MAX_FIRST_WORDS} words"
    if not FOLDED & set(tags(imports)):
        yield "the imports are not folded (tag hide-input)"
    shown = {kind for output in figure.outputs for kind in output.get("data", {})}
    if not FOLDED & set(tags(figure)) or not shown & {"image/png", "text/markdown"}:
        yield "the second code cell is no figure whose code is folded (tag hide-input)"


def check_lengths(nb: NotebookNode) -> Iterator[str]:
    """Visible cells with one purpose, a chapter that is read in one sitting."""
    for number, cell in _code(nb):
        if (lines := visible_lines(cell)) > MAX_VISIBLE_LINES:
            yield f"cell {number} shows {lines} lines of code, at most {MAX_VISIBLE_LINES}: fold a check, or split it"
    read, code, _ = minutes(nb)
    if read > MAX_READING_MINUTES:
        yield f"the words take {read} minutes, at most {MAX_READING_MINUTES} are accepted"
    if read + code > MAX_MINUTES_WITH_CODE:
        yield f"words and visible code take {read} + {code} minutes, at most {MAX_MINUTES_WITH_CODE} are accepted"


def check_sections(nb: NotebookNode) -> Iterator[str]:
    """The opening and the closing sections that every chapter has."""
    opening = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            opening.append(cell.source)
            if re.search(r"^## ", cell.source, flags=re.M):
                break
    text = "\n".join(opening)
    for phrase in OPENING:
        if phrase not in text:
            yield f"the opening, before the first section, has no {phrase}"
    if OPENING[-1] in text and time_line(nb) not in text:
        yield f"the times are not those of the chapter, write it again with tools/nb.py: {time_line(nb)}"
    headings = re.findall(r"^## +(.+?) *$", "\n".join(c.source for c in nb.cells if c.cell_type == "markdown"), re.M)
    for section in SECTIONS:
        if section not in headings:
            yield f"there is no section '## {section}'"


def exercises(nb: NotebookNode) -> list[tuple[int, NotebookNode, list[NotebookNode]]]:
    """Each exercise: the index of its Markdown cell, that cell, and the code cells up to the next one."""
    starts = [n for n, cell in enumerate(nb.cells) if cell.cell_type == "markdown" and EXERCISE.search(cell.source)]
    return [
        (start, nb.cells[start], [cell for cell in nb.cells[start + 1 : end] if cell.cell_type == "code"])
        for start, end in pairwise([*starts, len(nb.cells)])
    ]


def check_exercises(nb: NotebookNode, chapter: str) -> Iterator[str]:
    """At least four exercises, of all kinds, each as text, stub, check and hidden solution."""
    found = exercises(nb)
    if len(found) < MIN_EXERCISES:
        yield f"{len(found)} exercises, at least {MIN_EXERCISES} are needed"
    kinds, names = set(), []
    for number, text, code in found:
        where = f"exercise in cell {number}"
        if len(EXERCISE.findall(text.source)) > 1:
            yield f"{where}: more than one exercise in a cell"
        if not LABEL.search(text.source):
            yield f"{where}: no :label:"
        if match := LEVEL.search(text.source):
            kinds.add(match["kind"].lower())
        else:
            yield f"{where}: no kind and level, as in 'derive · level 2' (kinds: {', '.join(KINDS)}; levels 1 to 4)"
        stub, check, *rest = [*code, None, None][: max(len(code), 2)]
        solutions = []
        for cell in rest:
            if "solution" not in tags(cell):
                break
            solutions.append(cell)
        if stub is None or "exercise" not in tags(stub):
            yield f"{where}: the first code cell after it is no stub tagged 'exercise'"
        elif "NotImplemented" not in {n.id for n in ast.walk(parse(stub) or ast.Module([], [])) if hasattr(n, "id")}:
            yield f"{where}: the stub does not return NotImplemented"
        name = final_check(check) if check is not None and "solution" not in tags(check) else None
        if name is None:
            yield f'{where}: no cell after the stub that ends in check("{chapter}.name", …)'
        else:
            names.append(name)
            if not name.startswith(f"{chapter}."):
                yield f"{where}: the check {name!r} should begin with '{chapter}.'"
            if f"{name}: not attempted" not in "\n".join(output_texts(check)):
                yield f"{where}: the stored output of the check of the stub does not say '{name}: not attempted'"
        if not solutions:
            yield f"{where}: no solution cell tagged 'solution' after the check"
            continue
        for cell in solutions:
            if "hide-cell" not in tags(cell):
                yield f"{where}: the solution is not tagged 'hide-cell'"
        if (final := final_check(solutions[-1])) is None or final != name:
            yield f"{where}: the solution does not end in the same check ({final!r} instead of {name!r})"
        elif f"{name}: correct" not in "\n".join(output_texts(solutions[-1])):
            yield f"{where}: the stored output of the solution does not say '{name}: correct'"
    if missing := [kind for kind in KINDS if kind not in kinds]:
        yield f"no exercise to {' and none to '.join(missing)}"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two exercises use the check {name!r}"
    for number, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown" and (match := GATED.search(cell.source)):
            yield f"cell {number}: {match[0]} does not work in Jupyter Book 2"
