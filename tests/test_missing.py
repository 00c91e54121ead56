"""A test of a package that is not installed is skipped and says so; nothing else that fails to be imported is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import missing

FILES = {
    "test_top.py": "import onnx\ndef test(): assert False",
    "test_within.py": "def test():\n    import onnx\ndef test_other(): pass",
    "test_fixture.py": "import pytest\n@pytest.fixture\ndef f():\n    import onnx\ndef test(f): pass",
    "test_typo.py": "import nunpy\ndef test(): pass",
    "test_typo_within.py": "def test():\n    import nunpy",
    "test_fails.py": "def test(): assert False",
}

# As if onnx were not installed.
HIDE = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "onnx" else find(name, *more)
class Hide:
    def find_spec(self, name, *more):
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
sys.meta_path.insert(0, Hide())
"""


def test_what_is_missing_is_skipped_and_named(tmp_path: Path):
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "conftest.py", "missing.py"):
        shutil.copy(Path(missing.__file__).with_name(name), tmp_path / "tests")
    for name, text in FILES.items():
        (tmp_path / "tests" / name).write_text(text, encoding="utf-8")
    (tmp_path / "hide.py").write_text(HIDE, encoding="utf-8")
    command = [sys.executable, "-c", "import hide, sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"]
    command += ["-q", "-rs", "-p", "no:nbval", "--import-mode=importlib", "--continue-on-collection-errors", "tests"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, encoding="utf-8", env={"PYTHONPATH": str(tmp_path)}, timeout=120
    )
    assert "2 failed, 1 passed, 3 skipped, 1 error" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("onnx is not installed") >= 1
    assert all(name in done.stdout for name in ("test_typo.py", "test_typo_within.py", "test_fails.py"))


@pytest.mark.parametrize(
    ("error", "package"),
    [
        (ModuleNotFoundError(name="tensorflow.keras"), "tensorflow"),
        (ModuleNotFoundError(name="bnbook.nothing"), None),
        (ModuleNotFoundError(), None),
        (ValueError(), None),
        (None, None),
    ],
)
def test_the_package_that_an_error_misses(error, package, monkeypatch):
    monkeypatch.setattr(missing.importlib.util, "find_spec", lambda name: None)
    assert missing.missing(error) == package
    outer = RuntimeError()
    outer.__cause__ = error
    assert missing.missing(outer) == package
    monkeypatch.setattr(missing.importlib.util, "find_spec", lambda name: "there")
    assert missing.missing(error) is None
