"""The notebook tool: read, edit, execute and check the chapters, which live as executed notebooks in ``book/``.

    python tools/nb.py text book/02_forward.ipynb -o forward.md    the notebook as MyST Markdown, without outputs
    python tools/nb.py apply forward.md book/02_forward.ipynb      the edited text into the notebook, which is executed
    python tools/nb.py apply --keep-outputs forward.md NB          the same when only words changed: nothing is executed
    python tools/nb.py run book/02_forward.ipynb ...               execute again
    python tools/nb.py check [NB ...]                              the static guards (all chapters by default)
    python tools/nb.py student                        all chapters without solutions and outputs, in _build/student/
    python tools/nb.py student book/02_forward.ipynb -o mine.student.ipynb                         the same of one

A notebook whose code fails is left as it was: the failing cell and its traceback are printed, the exit status is 1.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import copy
import difflib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nb_times import state_time
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
TIMEOUT = 300  # seconds a cell may take

# What a kernel does must not depend on the shell and the home of whoever starts it.
KERNEL_ENV = {
    # One thread: sums are then taken in one order, so that printed digits agree between runs and machines.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Another backend would leave the pictures out, other settings would draw them otherwise.
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MATPLOTLIBRC": "",
    "KERAS_BACKEND": "tensorflow",
    "PYTHONSTARTUP": "",
    "PYTHONWARNINGS": "",
}
# The same for files: settings are read, and caches kept, in folders of these names in KERNEL_HOME.
KERNEL_FOLDERS = {
    "MPLCONFIGDIR": "matplotlib",
    "IPYTHONDIR": "ipython",
    "JUPYTER_RUNTIME_DIR": "jupyter",
    "KERAS_HOME": "keras",
}
KERNEL_HOME = ROOT / "_build" / "kernel"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE_INFO = {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"}
CELL_METADATA = ("jupyter", "mystnb", "tags")
# jupytext's header names its version and the kernel: the first changes by itself, the second is always the same.
STUDENT = ROOT / "_build" / "student"
EXERCISES = re.compile(r"^## Exercises *\n", re.MULTILINE)
FOR_LEARNERS = (
    "Type your answer in place of `NotImplemented`, run the cell, then the one below it: `check` says whether it "
    "holds, and why not.",
    "Level 1 applies a formula of the chapter, level 2 puts some of them together, "
    "level 3 needs an idea that the chapter does not spell out.",
)
HEADER = re.compile(r"\A---\n(?=(?:jupytext|kernelspec):)(?:.*\n)*?---\n+")


class NotebookError(Exception):
    """Something in a notebook, or in the text of one, that the tool refuses; the message says what and where."""


# Reading and writing


def read(path: str | Path) -> NotebookNode:
    """The notebook at ``path``, as nbformat 4."""
    return nbformat.read(path, as_version=4)


def write(nb: NotebookNode, path: str | Path) -> None:
    """Write the normalised notebook, all of it or nothing."""
    path = Path(path)
    state_time(normalise(nb))
    nbformat.validate(nb)
    text = nbformat.writes(nb, version=nbformat.NO_CONVERT)
    write_text(text if text.endswith("\n") else text + "\n", path)


def write_text(text: str, path: str | Path) -> None:
    """Write a file through a temporary one beside it, so that an interruption never leaves half of it."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe or /dev/null must stay what it is
        path.write_text(text, encoding="utf-8")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def normalise(nb: NotebookNode) -> NotebookNode:
    """Remove from ``nb``, in place, what differs between machines or is nobody's: empty cells, metadata."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE_INFO})
    nb.cells = [cell for cell in nb.cells if cell.source.strip()]
    for cell in nb.cells:
        cell.source = cell.source.strip("\n")
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)})
    set_ids(nb)
    return nb


def set_ids(nb: NotebookNode, old: NotebookNode | None = None) -> None:
    """Give each cell a stable id, in place: that of the same cell in ``old``, else one made from its content.

    Cells of the same kind and source keep the id they had; a changed cell takes over the id of the cell it replaces.
    """
    ids: list[str | None] = [cell.get("id") for cell in nb.cells]
    if old is not None:
        ids = [None] * len(nb.cells)
        was, now = ([(cell.cell_type, cell.source) for cell in cells] for cells in (old.cells, nb.cells))
        for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, was, now, autojunk=False).get_opcodes():
            if kind in ("equal", "replace"):
                for a, b in zip(range(a0, a1), range(b0, b1), strict=False):
                    if was[a][0] == now[b][0]:
                        ids[b] = old.cells[a].get("id")
    kept, seen = set(filter(None, ids)), set()
    for cell, id_ in zip(nb.cells, ids, strict=True):
        count = 0
        while not id_ or id_ in seen:
            digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}\n{count}".encode()).hexdigest()[:8]
            id_, count = (None if digest in kept else digest), count + 1
        cell.id = id_
        seen.add(id_)


def strip_outputs(nb: NotebookNode) -> NotebookNode:
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


# The text form


def to_text(nb: NotebookNode) -> str:
    """``nb`` as MyST Markdown: sources, tags and cell metadata, without outputs.

    Raises NotebookError where reading the text back would not give the same cells (for instance a line ``+++`` in a
    Markdown cell, which is the separator of cells).
    """
    import jupytext

    nb = normalise(copy.deepcopy(nb))
    text = HEADER.sub("", jupytext.writes(nb, fmt="md:myst"))
    for number, (cell, back) in enumerate(zip(nb.cells, from_text(text).cells, strict=False)):
        if signature(cell) != signature(back):
            raise NotebookError(f"cell {number} does not survive the conversion to text:\n{cell.source}")
    if len(from_text(text).cells) != len(nb.cells):
        raise NotebookError("the text has another number of cells than the notebook: is there a line '+++' in one?")
    return text


def from_text(text: str) -> NotebookNode:
    """The notebook, not executed, that MyST Markdown describes."""
    import jupytext

    nb = jupytext.reads(HEADER.sub("", text), fmt="md:myst")
    for cell in nb.cells:
        cell.pop("id", None)  # random: `set_ids` makes stable ones
    return normalise(strip_outputs(nb))


def signature(cell: NotebookNode) -> tuple:
    """What a person writes of a cell: its kind, source and metadata."""
    return cell.cell_type, cell.source, {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}


# Execution


@contextlib.contextmanager
def kernel_environment() -> Iterator[None]:
    """Kernels started meanwhile get KERNEL_ENV and KERNEL_FOLDERS; afterwards the environment is what it was."""
    home = _kernel_home()
    wanted = KERNEL_ENV | {name: str(home / folder) for name, folder in KERNEL_FOLDERS.items()}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@functools.cache
def _kernel_home() -> Path:
    """KERNEL_HOME, or where it cannot be written a folder that goes with this process; it lists the fonts."""
    try:
        KERNEL_HOME.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=KERNEL_HOME).close()
        home = KERNEL_HOME
    except OSError:
        home = Path(tempfile.mkdtemp(prefix="kernel-"))
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    for folder in KERNEL_FOLDERS.values():
        (home / folder).mkdir(exist_ok=True)
    # A kernel that has to make the list says so on stderr where it takes long.
    environment = os.environ | {"MPLCONFIGDIR": str(home / KERNEL_FOLDERS["MPLCONFIGDIR"])}
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], env=environment, capture_output=True)
    return home


def execute(nb: NotebookNode, name: str = "notebook", cwd: str | Path | None = None) -> NotebookNode:
    """Execute ``nb`` in place in a fresh kernel of this interpreter.

    Raises NotebookError with the source of the failing cell and its traceback.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    strip_outputs(nb)
    cwd = cwd or (BOOK if BOOK.is_dir() else Path.cwd())

    class ThisInterpreter(AsyncKernelManager):
        """Without folders to search, "python3" is the ipykernel of this interpreter, whatever else is installed."""

        def __init__(self, **options) -> None:
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)

    client = NotebookClient(
        nb,
        kernel_manager_class=ThisInterpreter,
        kernel_name="python3",
        timeout=TIMEOUT,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # ipykernel warns about its local sockets at every start
    )
    try:
        with kernel_environment():
            client.execute(cwd=str(cwd))
    except CellTimeoutError as error:
        raise NotebookError(f"{name}: a cell took longer than {TIMEOUT} s\n{error}") from None
    except DeadKernelError as error:
        raise NotebookError(f"{name}: the kernel died\n{error}") from None
    except CellExecutionError as error:
        number = next(
            (
                i
                for i, cell in enumerate(nb.cells)
                if any(o.output_type == "error" for o in cell.get("outputs", []))
                and "raises-exception" not in cell.metadata.get("tags", [])
            ),
            "?",
        )
        message = str(error) if sys.stderr.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        raise NotebookError(f"{name}: cell {number} failed, the notebook is unchanged\n{message}") from None
    return nb


# The commands


def apply(text: str, path: str | Path, keep_outputs: bool = False) -> NotebookNode:
    """Make the notebook at ``path`` from MyST text, execute it, write it.

    With ``keep_outputs`` nothing is executed; the code must then be that of the stored notebook.
    """
    path = Path(path)
    nb, old = from_text(text), read(path) if path.exists() else None
    for cell in nb.cells:
        cell.pop("id", None)
    set_ids(nb, old)
    if keep_outputs:
        codes, stored = (
            [cell for cell in book.cells if cell.cell_type == "code"] if book else [] for book in (nb, old)
        )
        if [cell.source for cell in codes] != [cell.source for cell in stored]:
            raise NotebookError(f"{path}: the code differs from that of the notebook: apply without --keep-outputs")
        for cell, was in zip(codes, stored, strict=True):
            cell.outputs, cell.execution_count = was.outputs, was.execution_count
    else:
        execute(nb, str(path))
    write(nb, path)
    return nb


def run(path: str | Path) -> NotebookNode:
    """Execute the notebook at ``path`` again and write it."""
    nb = normalise(read(path))
    execute(nb, str(path))
    write(nb, path)
    return nb


def student(nb: NotebookNode) -> NotebookNode:
    """A copy of ``nb`` without the cells tagged ``solution`` and without outputs, which says how to answer."""
    nb = copy.deepcopy(nb)
    nb.cells = [cell for cell in nb.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in nb.cells:
        if cell.cell_type == "markdown" and EXERCISES.search(cell.source):
            said = "".join(f"\n{line}" for line in FOR_LEARNERS if line not in cell.source)
            cell.source = EXERCISES.sub(
                lambda heading, said=said: f"{heading[0]}{said}\n" if said else heading[0], cell.source
            )
    return normalise(strip_outputs(nb))


def students() -> None:
    """Write all notebooks for learners. Those that are there may hold answers: they stay."""
    for path in notebooks():
        target = STUDENT / path.name
        if target.exists():
            print(f"{target.relative_to(ROOT)} stays as it is: move it away to have it made again")
        else:
            write(student(read(path)), target)
    results = STUDENT / "results"  # chapters read them beside the notebook
    if (BOOK / "results").is_dir() and not results.exists():
        results.symlink_to(os.path.relpath(BOOK / "results", STUDENT))
    print(f"{STUDENT.relative_to(ROOT)} has the notebooks without solutions")


def notebooks() -> list[Path]:
    """The notebooks of the book, in order."""
    return sorted(path for path in BOOK.glob("*.ipynb") if not path.name.endswith(".student.ipynb"))


def report(paths: list[Path]) -> int:
    """Print what the static guards find in the notebooks; the number of findings."""
    from nb_guards import check_notebook

    found = 0
    for path in paths:
        for problem in check_notebook(read(path), path.name, path.stat().st_size):
            print(f"{path}: {problem}")
            found += 1
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("text", help="print a notebook as MyST Markdown")
    sub.add_argument("notebook", type=Path)
    sub.add_argument("-o", "--output", type=Path)
    sub = commands.add_parser("apply", help="make a notebook from MyST Markdown and execute it")
    sub.add_argument("text", type=Path)
    sub.add_argument("notebook", type=Path)
    sub.add_argument("--keep-outputs", action="store_true", help="only words or tags changed: do not execute")
    sub = commands.add_parser("run", help="execute notebooks again")
    sub.add_argument("notebooks", type=Path, nargs="+")
    sub = commands.add_parser("check", help="run the static guards")
    sub.add_argument("notebooks", type=Path, nargs="*")
    sub = commands.add_parser("student", help="write all notebooks, or one, without solutions and outputs")
    sub.add_argument("notebook", type=Path, nargs="?")
    sub.add_argument("-o", "--output", type=Path, help="where to write the one")
    args = parser.parse_args(arguments)
    try:
        if args.command == "text":
            text = to_text(read(args.notebook))
            if args.output:
                write_text(text, args.output)
            else:
                sys.stdout.write(text)
        elif args.command == "apply":
            apply(args.text.read_text(encoding="utf-8"), args.notebook, args.keep_outputs)
            report([args.notebook])  # a hint for the author; only `check` and the tests fail on it
        elif args.command == "run":
            for path in args.notebooks:
                run(path)
                print(f"{path}: executed")
        elif args.command == "check":
            paths = args.notebooks or notebooks()
            found = report(paths)
            print(f"{len(paths)} notebooks, {found} problems")
            return int(found > 0)
        elif args.command == "student" and not args.notebook:
            students()
        elif args.command == "student":
            if not args.output:
                raise NotebookError("say with -o where to write the notebook")
            if args.output.exists() and args.output.samefile(args.notebook):
                raise NotebookError(f"{args.output} is the notebook itself: give another name")
            write(student(read(args.notebook)), args.output)
    except (NotebookError, OSError, nbformat.reader.NotJSONError) as error:
        print(f"nb.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # as `apply` reads it, whatever the locale
    sys.exit(main())
