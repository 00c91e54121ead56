"""A trial chapter that is as it should be, in a small repository with this one's tools and settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nb as tool
import nb_guards as guards
from nbformat import NotebookNode

ROOT = tool.ROOT

CHECKING = """
class Result:
    def __init__(self, text): self.text = text
    def __repr__(self): return self.text

def check(name, answer):
    value = answer()
    return Result(f"{name}: " + ("not attempted" if value is NotImplemented else "correct"))
"""

OPENING = """\
# A trial chapter

Two lines about a batch.

```{code-cell}
:tags: [hide-input]

import matplotlib.pyplot as plt
import numpy as np
from trial_checking import check

from bnbook import plotting

plotting.use_style()
```

```{code-cell}
---
mystnb:
  image:
    alt: The histogram has one hump and is highest in the middle, like α̂.
  figure:
    caption: |
      A sample of the standard normal distribution; see {term}`batch`.
    name: fig-trial
tags: [hide-input]
---
rng = np.random.default_rng(0)
fig, ax = plt.subplots(figsize=(4, 3))
ax.hist(rng.normal(size=1000), bins=30)
plt.show()
```

**You will learn** something.
**You need** nothing.

**Time**

## A section

The batch is $x = 0.5$ and `momentum` is `0.1`.

+++ {"tags": ["margin"]}

A trained cell is asserted about:

```{code-cell}
:tags: [nbval-ignore-output]

loss = rng.uniform()
print(loss)
```

```{code-cell}
assert 0 <= loss < 1
print(np.zeros(2))
```

## Remember

All of it.

## Exercises
"""

EXERCISE = """
```{{exercise}} Number {number}
:label: ex-trial-{number}

*{kind} · level {number}.* Return 1.
```

```{{code-cell}}
:tags: [exercise]

def answer_{number}():
    return NotImplemented
```

```{{code-cell}}
check("ch01.answer_{number}", answer_{number})
```

```{{code-cell}}
:tags: [hide-cell, solution]

def answer_{number}():
    return 1


check("ch01.answer_{number}", answer_{number})
```
"""

CHAPTER = "".join(
    [OPENING]
    + [EXERCISE.format(number=n, kind=kind.title()) for n, kind in enumerate(guards.KINDS, start=1)]
    + ["\n## Further reading\n\nNothing.\n"]
)


def repository(folder: Path) -> Path:
    """A small repository with this one's tool, settings and notebook tests, and no chapter."""
    for name in ("conftest.py", "pyproject.toml", "tests/nbval_sanitize.cfg", "tests/notebooks/test_notebooks.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "book").mkdir()
    (folder / "book" / "trial_checking.py").write_text(CHECKING, encoding="utf-8")
    return folder


def pytest_in(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {"OMP_NUM_THREADS": "2", "MPLBACKEND": "agg"}  # a kernel must not take these over
    return subprocess.run(
        command, cwd=folder, env=environment | variables, capture_output=True, encoding="utf-8", timeout=600
    )


def nb_command(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/nb.py", *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, encoding="utf-8", timeout=600
    )


def cell_with(nb: NotebookNode, part: str) -> NotebookNode:
    (cell,) = (cell for cell in nb.cells if part in cell.source)
    return cell


def order(nb: NotebookNode) -> None:
    first, second = cell_with(nb, "bins"), cell_with(nb, "print(loss)")
    first.execution_count, second.execution_count = second.execution_count, first.execution_count
