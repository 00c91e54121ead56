"""The built book, for the tests that look at its pages."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the book's pages, built from nothing with every warning an error; once for all workers."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "book"
    out.mkdir(exist_ok=True)
    with (out / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        said = out / "said"
        if not said.exists():
            said.write_text(_build(out), encoding="utf-8")
    if said.read_text(encoding="utf-8"):
        pytest.fail(f"the book does not build:\n{said.read_text(encoding='utf-8')[-4000:]}", pytrace=False)
    return out / "_build" / "html"


def _build(out: Path) -> str:
    """Build the pages in a folder; what is wrong with them, or nothing."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(ROOT)]
    command += ["--path-output", str(out), "-W", "--keep-going", "--quiet"]
    build = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=1200)
    return build.stderr or f"exit status {build.returncode}" if build.returncode else ""
