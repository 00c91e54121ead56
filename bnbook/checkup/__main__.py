"""`python -m bnbook.checkup`: the check-up of a model that a function makes."""

from __future__ import annotations

import argparse
import codecs
import importlib
import importlib.util
import sys
import textwrap
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import reduce
from pathlib import Path
from typing import Any

from torch import nn

from .check import checkup, codes_of
from .findings import Report
from .onnx_file import NotReadable, checkup_onnx
from .rules import RULES, Rule

EPILOG = """\
The function takes no arguments and returns the model, or (model, batches), or (model, batches, optimizer). Batches are
inputs made as in training; without any, only what needs no run is checked. The model is taken in the mode in which it
is given: hand it over as it is trained, after model.train() and whatever you freeze.

  python -m bnbook.checkup my_model.py:make
  python -m bnbook.checkup package.models:make --ignore BN202,BN501 --json
  python -m bnbook.checkup model.onnx
  python -m bnbook.checkup --explain BN105

Of an ONNX file the state of its layers is read, with the package onnx; nothing of it is run. Else the code is run on
this computer, as you. Exit status: 0 without errors and warnings, 1 with, 2 where nothing could be checked.
"""


class CannotLoad(Exception):
    """There is no model to check, and why."""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m bnbook.checkup",
        description="What is wrong with the batch normalization of a model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = result.add_mutually_exclusive_group(required=True)
    what.add_argument("target", nargs="?", metavar="MODULE:FUNCTION", help="or FILE.py:FUNCTION, or FILE.onnx")
    what.add_argument("--explain", type=_code, metavar="CODE", help="what a finding means, and what mends it")
    what.add_argument("--list", action="store_true", help="the codes, a line each")
    result.add_argument("--ignore", type=_codes, default=[], metavar="CODES", help="not to be reported: BN202,BN501")
    result.add_argument("--json", action="store_true", help="for programs")
    return result


def _code(word: str) -> str:
    if word.upper() not in RULES:
        raise argparse.ArgumentTypeError(f"there is no finding {word}: the codes are {', '.join(RULES)}")
    return word.upper()


def _codes(words: str) -> list[str]:
    try:
        return codes_of(words)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def load(target: str) -> Callable[[], Any]:
    """The function of `package.module:function` or `file.py:function`."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise CannotLoad(f"{target} is no MODULE:FUNCTION and no FILE.py:FUNCTION")
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except CannotLoad:
        raise
    except (Exception, SystemExit) as error:
        raise CannotLoad(f"{place} cannot be imported: {_line(error)}") from error
    function = reduce(lambda value, part: getattr(value, part, None), name.split("."), module)
    if not callable(function):
        raise CannotLoad(f"{place} {'has no' if function is None else 'holds no function'} {name}")
    return function


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise CannotLoad(f"there is no file {path}")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    first = " ".join(lines[:2]).replace("\t", "") if lines[0].endswith(":") else lines[0]  # "Error(s) in loading …:"
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def explanation(rule: Rule) -> str:
    """A rule as a page of text."""
    parts = [f"{rule.code} ({rule.severity}): {rule.title}", rule.why, f"Mend: {rule.mend}", f"See {rule.link}"]
    return "\n\n".join(textwrap.fill(part, 100) for part in parts)


WORDS = {
    "✗": "x",
    "·": "-",
    "γ": "gamma",
    "β": "beta",
    "μ": "mu",
    "σ": "sigma",
    "ε": "eps",
    "√": "sqrt ",
    "−": "-",
    "±": "+-",
}


def _print_anywhere() -> None:
    """On a terminal that lacks a letter (ASCII, a code page of Windows), write its name."""

    def named(error: UnicodeError) -> tuple[str, int]:
        return "".join(WORDS.get(letter, "?") for letter in error.object[error.start : error.end]), error.end

    codecs.register_error("bnbook.named", named)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="bnbook.named")


def main(words: list[str] | None = None) -> int:
    _print_anywhere()
    options = parser().parse_args(words)
    if options.explain:
        print(explanation(RULES[options.explain]))
        return 0
    if options.list:
        print("\n".join(f"{rule.code}  {rule.severity:7}  {rule.title}" for rule in RULES.values()))
        return 0
    try:
        with redirect_stdout(sys.stderr):  # what the model and its maker print is no part of the report
            report = _report(options.target, options.ignore)
    except CannotLoad as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.json() if options.json else report.text())
    return int(report.worst in ("error", "warning"))


def _report(target: str, ignore: list[str]) -> Report:
    if target.lower().endswith(".onnx"):
        try:
            return checkup_onnx(target, ignore=ignore)
        except NotReadable as error:
            raise CannotLoad(" ".join(str(error).split())) from error
    function = load(target)
    try:
        made = function()
    except (Exception, SystemExit) as error:
        raise CannotLoad(f"{target} raises {_line(error)}") from error
    given = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(given) <= 3:
        raise CannotLoad(f"{target} returns {len(given)} values, not the model, batches and optimizer")
    model, batches, optimizer = (*given, *((), None)[len(given) - 1 :])
    if not isinstance(model, nn.Module):
        raise CannotLoad(f"{target} returns no torch.nn.Module, but a {type(model).__name__}")
    try:
        return checkup(model, batches, optimizer=optimizer, ignore=ignore)
    except (TypeError, ValueError) as error:
        raise CannotLoad(" ".join(str(error).split())) from error
    except Exception as error:  # of the batches, as they are made
        raise CannotLoad(f"the batches of {target} raise {_line(error)}") from error


if __name__ == "__main__":
    raise SystemExit(main())
