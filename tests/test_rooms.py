"""The rooms of the package: what a file may import. The README's map tells the reader the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bnbook"

FLOORS = (  # a file imports from its own room and from floors above it in this list
    {"provenance", "plotting", "data", "functional"},
    {"nn"},
    {"optim", "textbook"},  # the teaching core ends here
    {"models", "probes", "checking", "kernels"},
    {"interop"},
    {"checkup"},
    {"train"},
    {"experiments"},
    {"checking.chapters"},
)
ROOM_WITHIN = ("checking.chapters",)  # a folder of a room that is a room of its own


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room of a module of the package; "" for `bnbook` itself, which holds the version alone."""
    below = module.partition(".")[2]
    return next((r for r in ROOM_WITHIN if below == r or below.startswith(r + ".")), below.partition(".")[0])


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(module of the package, line, whether at the top of the file) for every import, those in functions too."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, top) for alias in node.names if alias.name.startswith("bnbook"))
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            if not module.startswith("bnbook"):
                continue
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                yield (whole if is_module(whole) else module), node.lineno, top


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def floor(name: str) -> int:
    found = [i for i, rooms in enumerate(FLOORS) if name in rooms]
    assert found, f"bnbook/{name} is a room that the list of floors does not have: put it on its floor"
    return found[0]


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_imports_point_one_way(path):
    here = room(name_of(path))
    for module, line, _ in imports(path):
        there = room(module)
        if there and there != here:
            assert floor(there) < floor(here), (
                f"{path.relative_to(ROOT)}:{line} imports {module}, a floor below its own"
            )


def test_no_circle_of_files():
    """Within a room too: what is imported at the top of files never leads back."""
    graph = {name_of(path): {m for m, _, top in imports(path) if top and is_module(m)} for path in files()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_nothing_private_floats_at_the_top():
    assert [p.name for p in PACKAGE.glob("_*.py") if p.name != "__init__.py"] == []
    assert {room(name_of(path)) for path in files()} - {""} <= set().union(*FLOORS)


def test_the_core_needs_numpy_alone():
    """Standard library and NumPy at the top of every file of the teaching core; the figures need matplotlib."""
    import sys

    core = set().union(*FLOORS[:3])
    for path in files():
        if room(name_of(path)) not in core:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                first = name.partition(".")[0]
                known = first in sys.stdlib_module_names or first == "numpy"
                assert known or (path.name == "plotting.py" and first == "matplotlib"), f"{path}: {name}"


def test_the_kernels_ask_for_nothing_before_they_are_used():
    """The room is a docstring; Triton, which few have, is asked for in files of its own with an underscore alone."""
    room_of = PACKAGE / "kernels"
    (docstring,) = ast.parse((room_of / "__init__.py").read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    for path in room_of.glob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = [a.name for node in body if isinstance(node, ast.Import) for a in node.names]
        names += [node.module for node in body if isinstance(node, ast.ImportFrom) and not node.level]
        assert path.name.startswith("_") or not any(name.partition(".")[0] == "triton" for name in names), path
