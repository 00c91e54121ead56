"""The trial repository, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import nb as tool
import pytest
from nbformat import NotebookNode

from tests.notebooks.trial import CHAPTER, nb_command, repository


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose one chapter is as it should be; not to be changed."""
    folder = repository(tmp_path_factory.mktemp("made"))
    (folder / "trial.md").write_text(CHAPTER, encoding="utf-8")
    done = nb_command(folder, "apply", "trial.md", "book/01_trial.ipynb")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.fixture
def repo(made: Path, tmp_path: Path) -> Path:
    """A copy of the repository."""
    return Path(shutil.copytree(made, tmp_path / "repository"))


@pytest.fixture
def chapter(made: Path) -> NotebookNode:
    return tool.read(made / "book" / "01_trial.ipynb")
