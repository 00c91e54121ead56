"""What a recorded result is in the words of JSON, and where it comes from."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bnbook.provenance import _commit, provenance
from bnbook.provenance import plain as in_json


def test_plain_values():
    value = {
        "float": np.float32(0.5),
        "nan": [math.nan, -math.inf, np.float64(np.nan)],
        "array": np.array([[1.0, np.inf], [2.0, 3.0]]),
        "right": np.bool_(True),
        3: (1, "a", None, False),
    }
    plain = in_json(value)
    assert plain == {
        "float": 0.5,
        "nan": [None] * 3,
        "array": [[1.0, None], [2.0, 3.0]],
        "right": True,
        "3": [1, "a", None, False],
    }
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert type(plain["right"]) is bool and type(plain["3"][0]) is int
    with pytest.raises(TypeError, match="got set: "):
        in_json({"a": [{1}]})


def test_provenance_takes_more_versions():
    source = provenance("a command", torch="2.13.0", threads="1")
    assert source["command"] == "a command" and source["torch"] == "2.13.0" and source["threads"] == "1"
    assert source["numpy"] == np.__version__ and all(isinstance(value, str) for value in source.values())


# --- the commit -------------------------------------------------------------------------------------------------------

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, in which this package lies as its own."""
    copy_of_the_package(tmp_path / "bnbook")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def copy_of_the_package(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("__init__.py", "provenance.py"):
        (folder / name).write_text("", encoding="utf-8")
    return folder


@needs_git
def test_the_commit_of_a_clone(repository):
    head = git(repository, "rev-parse", "HEAD")
    assert _commit(repository / "bnbook") == head[:12]


@needs_git
@pytest.mark.parametrize("name", ["provenance.py", "new.py"])
def test_a_package_that_differs_from_its_commit_says_so(name, repository):
    (repository / "bnbook" / name).write_text("changed", encoding="utf-8")
    git(repository, "config", "status.showUntrackedFiles", "no")
    assert _commit(repository / "bnbook") == git(repository, "rev-parse", "HEAD")[:12] + "+"


@needs_git
@pytest.mark.parametrize("ignored", [True, False])
def test_the_commit_of_a_repository_that_surrounds_the_package_is_not_its_own(ignored, repository):
    """The environment of somebody's project, or a copy that they have not made theirs."""
    (repository / ".gitignore").write_text(".venv" if ignored else "", encoding="utf-8")
    package = copy_of_the_package(repository / ".venv/lib/site-packages/bnbook")
    assert _commit(package) == "unknown"


@needs_git
def test_a_hook_of_another_repository_does_not_lend_its_commit(repository, tmp_path_factory, monkeypatch):
    package = copy_of_the_package(tmp_path_factory.mktemp("elsewhere") / "bnbook")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(package.parent))
    assert _commit(package) == "unknown"


@pytest.mark.parametrize("program", ["", '#!/bin/sh\necho "fatal: detected dubious ownership" >&2; exit 128\n'])
def test_without_git_or_where_it_refuses_the_commit_is_unknown(program, tmp_path, monkeypatch):
    if program:
        (tmp_path / "git").write_text(program, encoding="utf-8")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _commit(copy_of_the_package(tmp_path / "bnbook")) == "unknown"


@needs_git
def test_the_commits_that_results_name_are_in_the_history_or_named_as_lost():
    """Whoever asks whether a plan is older than its rows finds the commits of both."""
    results = Path(__file__).parents[1] / "book/results"
    try:
        if git(results, "rev-parse", "--is-shallow-repository") == "true":
            pytest.skip("a shallow clone")
        known = git(results, "rev-list", "HEAD").split()
    except subprocess.CalledProcessError:
        pytest.skip("not a clone")
    commit = re.compile(r'"commit": "([0-9a-f]{12})\+?"')
    named = {c for file in results.glob("*.json*") for c in commit.findall(file.read_text(encoding="utf-8"))}
    lost = named - {c[:12] for c in known}
    lines = (results / "README.md").read_text(encoding="utf-8").splitlines()
    (said,) = [line for line in lines if line.startswith("Lost commits: ")]
    assert len(named) > 50 and lost == set(re.findall("[0-9a-f]{12}", said))
