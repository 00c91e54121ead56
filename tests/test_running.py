"""How the tests are run: one thread a process, the same random numbers each time, and what is left out is said."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

SKIPPED = """import pytest
@pytest.mark.skip(reason="no such card")
def test_skips(): pass
def test(): pass
"""
TESTS = {
    "test_a_quick": SKIPPED,
    "test_b_long": "import pytest\n@pytest.mark.long(seconds=5)\ndef test(): pass\ndef test_quick(): pass\n",
    "test_c_longest": "import pytest\npytestmark = pytest.mark.long(seconds=9)\ndef test(): pass\n",
}


def test_a_process_has_one_thread() -> None:
    assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == "1"
    if torch := sys.modules.get("torch"):
        assert torch.get_num_threads() == 1


@pytest.mark.parametrize("case", [0, 1])
def test_numbers_depend_on_the_name_of_the_test_alone(seed: int, case: int) -> None:
    drawn = [np.random.default_rng().random() for _ in range(2)]
    again = [np.random.default_rng(part).random() for part in np.random.SeedSequence(seed).spawn(2)]
    assert drawn == again and drawn[0] != drawn[1]
    assert random.random() == random.Random(seed).random()
    assert np.random.random() == np.random.RandomState(seed).random()
    if torch := sys.modules.get("torch"):
        assert torch.initial_seed() == seed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository with this one's settings, three files of tests and two notebooks."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for name, source in TESTS.items():
        (folder / "tests").mkdir(exist_ok=True)
        (folder / "tests" / f"{name}.py").write_text(source, encoding="utf-8")
    (folder / "book").mkdir()
    for name in ("a.ipynb", "b.ipynb"):
        (folder / "book" / name).write_text(
            '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', encoding="utf-8"
        )
    return folder


@pytest.mark.long(seconds=10)
@pytest.mark.parametrize("workers", [[], ["-n", "1", "--dist", "loadfile", "--no-loadscope-reorder"]], ids=len)
def test_what_is_left_out_is_said_and_the_longest_comes_first(folder: Path, workers: list[str]) -> None:
    pytest.importorskip("xdist")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "pytest", "-o", "addopts=--import-mode=importlib", "-p", "no:nbval", "-v"]
        done = subprocess.run(
            [*command, *workers, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    everything = run("tests")
    assert "\nLeft out: 1 tests (no such card), the outputs of 2 notebooks.\n" in everything
    places = [everything.index(f"tests/{name}.py::test") for name in TESTS]
    assert places == sorted(places, reverse=bool(workers))
    assert "\nLeft out: 2 tests (long), 1 tests (no such card), the outputs of 2" in run("-m", "not long", "tests")
    assert "Left out" not in run("tests/test_a_quick.py")
