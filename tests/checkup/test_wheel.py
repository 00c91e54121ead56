"""The built wheel, in an environment of its own that has PyTorch alone: the check-up is a tool to keep."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long

MODEL = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), [torch.randn(32, 3) + 4]
"""


def needed(name: str, seen: set[str]) -> Iterator[str]:
    """A package that is installed here and those that it needs."""
    if name in seen:
        return
    seen.add(name)
    try:
        requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:  # of another platform
        return
    yield name
    for line in requires:
        if "extra ==" not in line:
            yield from needed(re.match(r"[\w.-]+", line)[0], seen)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "bnbook", source / "bnbook", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", out, source]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = out.glob("bnbook-*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """The Python of an environment that has the wheel, PyTorch, NumPy, and what these need."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    seen: set[str] = set()
    for package in (*needed("torch", seen), *needed("numpy", seen)):
        files = importlib.metadata.files(package) or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            origin = Path(importlib.metadata.distribution(package).locate_file(top))
            if origin.exists() and not (site / top).exists():
                (site / top).symlink_to(origin)
    return folder / "bin" / "python"


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size <= 300_000
    names = zipfile.ZipFile(wheel).namelist()
    assert "bnbook/checkup/__main__.py" in names and "bnbook/probes/untouched.py" in names
    assert [name for name in names if "_data" in name or "experiments" in name or "/chapters/" in name] == []


def test_the_command_works_with_torch_alone(environment, tmp_path):
    (tmp_path / "my_model.py").write_text(MODEL, encoding="utf-8")
    alone = subprocess.run([environment, "-c", "import matplotlib"], capture_output=True, encoding="utf-8")
    assert "ModuleNotFoundError" in alone.stderr
    command = [environment, "-m", "bnbook.checkup"]
    ran = subprocess.run([*command, "my_model.py:make"], capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert ran.returncode == 1 and "BN101" in ran.stdout and ran.stderr == "", ran.stderr
    ran = subprocess.run([*command, "my_model.py:other"], capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert ran.returncode == 2 and ran.stderr == "error: my_model.py has no other\n"
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["my_model.py"]
