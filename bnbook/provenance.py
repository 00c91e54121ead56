"""What a recorded result is in the words of JSON, where it comes from, and how its file is replaced."""

from __future__ import annotations

import datetime
import math
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from . import __version__


def plain(value: object) -> object:
    """`value` in the words of JSON: arrays as lists, NumPy's scalars as Python's, and NaN and infinities as None.

    Raises:
        TypeError: a value that JSON cannot hold.
    """
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars, and torch's tensors
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a row holds numbers, strings, lists and dicts of them, got {type(value).__name__}: {value!r}")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file: whenever the process dies or the power fails, there is the old content or the new, all of it.

    Raises:
        OSError: it could not be written (the disk is full, say); the message names it, and the old content is there.
    """
    temporary = unfinished(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{path} could not be written ({error.strerror}); what it held before is kept") from None
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, is on the disk
    finally:
        os.close(folder)


def unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def provenance(command: str, **more: str) -> dict[str, str]:
    """Where rows come from: the command, the versions, the processor, the day, and the commit where there is git.

    Args:
        more: further versions and names, such as `torch=torch.__version__`; they may replace what this finds itself.
    """
    import numpy as np

    return {
        "command": command,
        "bnbook": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
    } | more


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@cache  # that of the code this process runs, whatever is committed meanwhile
def _commit(package: Path = Path(__file__).parent) -> str:
    """The commit that a package's folder is of, with "+" where its files differ; "unknown" where git does not say.

    A repository that merely surrounds the folder, a reader's own with an environment in it, is not the package's.
    """
    # Set while git runs a hook, these lead it to the repository of the hook.
    environment = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    how = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "check": True, "env": environment}

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "--no-optional-locks", "-C", str(package), *arguments], **how).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py", Path(__file__).name)
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-unormal", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
