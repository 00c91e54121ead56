"""The set-up of `make`: what is made, made again, left alone and refused, without making an environment."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import set_up

ROOT = Path(__file__).parents[1]
MINE = f"{sys.version_info[0]}.{sys.version_info[1]}"
# Stands for the Python of an environment: says its version, and notes what pip is called with.
STAND_IN = f"""#!/bin/sh
if [ "$1" = -I ]; then echo {MINE}; exit; fi
printf '%s\\n' "$@" > "$PWD/pip.log"
env >> "$PWD/pip.log"
echo 'ERROR: Could not find a version' >&2
[ -z "$FAILS" ] || {{ echo "ERROR: $FAILS" >&2; exit 1; }}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the lists of packages, in which environments are made in no time."""
    folder = tmp_path / "a [new] book 书"
    folder.mkdir()
    for name in ("requirements-book.txt", "requirements.txt", "requirements-core.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)

    def make_environment(command: list[str], env: dict[str, str]) -> int:
        assert env["PYTHONUTF8"] == "1"
        assert command[:3] == [sys.executable, "-m", "venv"]
        executable = Path(command[3], "bin", "python")
        executable.parent.mkdir()
        executable.write_text(STAND_IN, encoding="utf-8")
        executable.chmod(0o755)
        (executable.parent / "activate").write_text(f'VIRTUAL_ENV="{command[3]}"', encoding="utf-8")
        return 0

    monkeypatch.setattr(set_up, "ROOT", str(folder))
    monkeypatch.setattr(set_up.subprocess, "call", make_environment)
    return folder


def run(repository: Path, kind: str = "reading", venv: str = ".venv", **options) -> list[str] | None:
    """Set up; what pip was called with and saw, or None where it was not called."""
    log = repository / "pip.log"
    log.unlink(missing_ok=True)
    set_up.set_up(kind, str(repository / venv), **options)
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else None


def test_it_is_done_once(repository):
    assert "requirements-book.txt" in run(repository)
    assert run(repository) is None
    assert "requirements.txt" in run(repository, "everything", pip=("--extra-index-url", "https://example.org"))
    assert run(repository, "everything") is None and run(repository) is None


def test_a_change_of_what_is_needed_installs_again(repository):
    run(repository, "everything")
    with open(repository / "requirements.txt", "a", encoding="utf-8") as file:
        file.write("six\n")
    assert run(repository) is None
    assert run(repository, "everything") is not None


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_an_environment_of_another_place_is_made_again(how, repository, monkeypatch, capsys):
    run(repository)
    (repository / ".venv" / "left.txt").touch()
    elsewhere = repository.with_name("elsewhere")
    repository.rename(elsewhere) if how == "renamed" else shutil.copytree(repository, elsewhere, symlinks=True)
    monkeypatch.setattr(set_up, "ROOT", str(elsewhere))
    assert run(elsewhere) is not None
    assert not (elsewhere / ".venv" / "left.txt").exists() and "made again" in capsys.readouterr().out
    assert run(elsewhere) is None


def test_a_shared_environment_gets_the_package_of_this_folder(repository, monkeypatch, tmp_path):
    run(repository, venv=str(tmp_path / "shared"))
    other = repository.with_name("other")
    shutil.copytree(repository, other)
    monkeypatch.setattr(set_up, "ROOT", str(other))
    assert run(other, venv=str(tmp_path / "shared")) is not None


def test_an_environment_whose_python_is_gone_is_made_again(repository):
    run(repository)
    (repository / ".venv/bin/python").unlink()
    (repository / ".venv/bin/python").symlink_to("/nonexistent/python")
    assert run(repository) is not None


def test_an_environment_stays_when_the_locale_reads_its_folder_otherwise(repository):
    """A folder named in UTF-8 has other letters where file names are taken for GBK or ASCII, and is the same."""
    other = os.fsencode(str(repository)).decode("ascii", "surrogateescape")
    assert other != str(repository) and set_up.place(other) == set_up.place(str(repository))


def test_an_interrupted_set_up_is_taken_up(repository, monkeypatch):
    def interrupted(command, **options):
        Path(command[3], "bin").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(set_up.subprocess, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(repository)
    assert run(repository) is not None


def test_what_was_not_made_by_it_is_not_touched(repository):
    (repository / ".venv").mkdir()
    (repository / ".venv" / "thesis.tex").touch()
    with pytest.raises(set_up.SetUpError, match=r"remove it, or name another VENV"):
        run(repository)
    assert os.listdir(repository / ".venv") == ["thesis.tex"]


def test_an_environment_made_by_hand_is_used(repository):
    (repository / ".venv").mkdir()
    set_up.subprocess.call([sys.executable, "-m", "venv", str(repository / ".venv")], env=set_up.environment())
    (repository / ".venv" / "left.txt").touch()
    assert run(repository) is not None
    assert (repository / ".venv" / "left.txt").exists()


def test_another_python_than_the_one_named_is_refused(repository):
    run(repository)
    marker = json.loads((repository / ".venv" / set_up.MARKER).read_text(encoding="utf-8"))
    for name, old in (("bin/python", MINE), (set_up.MARKER, MINE)):
        file = repository / ".venv" / name
        file.write_text(file.read_text(encoding="utf-8").replace(old, "3.10"), encoding="utf-8")
    assert marker["python"] == MINE
    assert run(repository) is None
    with pytest.raises(set_up.SetUpError, match=rf"has Python 3.10, not {MINE}"):
        run(repository, named=True)


def test_pip_installs_into_the_environment_whatever_the_shell_says(repository, monkeypatch):
    for name in set_up.UNWANTED:
        monkeypatch.setenv(name, "/somewhere/else")
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/simple")
    seen = run(repository)
    assert "--no-user" in seen and "PIP_INDEX_URL=https://example.org/simple" in seen
    assert [line for line in seen if line.endswith("=/somewhere/else")] == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("No matching distribution found for numpy==2.4.6", "has no such package for Python"),
        ("[Errno 28] No space left on device", "No space left on device"),
    ],
)
def test_packages_that_cannot_be_installed_are_named_in_one_line(error, said, repository, monkeypatch):
    monkeypatch.setenv("FAILS", error)
    with pytest.raises(set_up.SetUpError) as raised:
        run(repository)
    assert error in str(raised.value) and said in str(raised.value) and "\n" not in str(raised.value)
    monkeypatch.delenv("FAILS")
    assert run(repository) is not None


def test_the_core_takes_the_numpy_that_is_named(repository):
    assert "numpy==1.26.*" in run(repository, "core", ".venv-core/a", numpy="1.26")
    assert run(repository, "core", ".venv-core/a", numpy="1.26") is None
    assert run(repository, "core", ".venv-core/a") is not None


def test_a_folder_that_no_environment_can_be_in(repository):
    with pytest.raises(set_up.SetUpError, match=r"holds a ':'"):
        run(repository, venv="a:b")


@pytest.mark.parametrize(
    ("version", "has_venv", "system", "said"),
    [
        ((3, 10, 4), True, "posix", "3.11 to 3.13, and this one is 3.10"),
        ((3, 14, 0), True, "posix", "this one is 3.14"),
        ((2, 7, 18), True, "posix", "this one is 2.7"),
        ((3, 12, 1), False, "posix", "apt-get install python3.12-venv"),
        ((3, 12, 1), True, "nt", "use WSL"),
    ],
)
def test_a_python_that_will_not_do_is_named_in_one_line(version, has_venv, system, said):
    line = set_up.problem(version, has_venv, system)
    assert said in line and "\n" not in line


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_a_python_that_will_do(minor):
    assert set_up.problem((3, minor, 0), True, "posix") is None


def test_a_python_that_is_too_old_can_read_it():
    tree = ast.parse((ROOT / "tools/set_up.py").read_text(encoding="ascii"))
    new = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Nonlocal, ast.AsyncFunctionDef, ast.Starred, ast.Match)
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, new)] == []
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.arg) and node.annotation] == []
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.cause] == []


def test_the_core_is_tested_with_what_the_book_is_made_with():
    """Only NumPy is another one."""
    pins = {
        line
        for name in ("requirements-book.txt", "requirements.txt")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    }
    core = re.findall(r"^[\w-]+==\S+$", (ROOT / "requirements-core.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(core) > 5 and [pin for pin in core if pin not in pins] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["book", "test", "lab", "serve", "bench", "lint", "test-core"])
def test_a_target_takes_an_environment_with_a_blank_in_its_name(target):
    """And PIP_ARGS, and the Python that was named."""
    variables = ["VENV=my env", "PYTHON=/my python/bin/python3", "PIP_ARGS=--pre --no-cache-dir", "NUMPY=1.26"]
    command = ["make", "--no-print-directory", "-n", "-C", str(ROOT), target, *variables]
    lines = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.splitlines()
    setting, *others = [shlex.split(line) for line in lines]
    assert setting[:2] == ["/my python/bin/python3", "tools/set_up.py"]
    assert setting[setting.index("--") :] == ["--", "--pre", "--no-cache-dir"] and "--named" in setting
    environment = setting[setting.index("--venv") + 1]
    assert target == "test-core" or environment == "my env"
    programs = [word for line in others for word in line if "/bin/" in word]
    assert programs and all(program.startswith(f"{environment}/bin/") for program in programs)
