"""The built book, for the tests that look at its pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the book's pages, built from nothing with every warning an error."""
    out = tmp_path_factory.mktemp("book")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(ROOT)]
    command += ["--path-output", str(out), "-W", "--keep-going", "--quiet"]
    build = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=600)
    if build.returncode:
        pytest.fail(f"the book does not build:\n{build.stderr[-4000:]}", pytrace=False)
    return out / "_build" / "html"
