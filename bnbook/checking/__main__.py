"""`python -m bnbook.checking`: the exercises outside the pages, and what your own tests see."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from . import mutate, report
from .catalogue import exercises

RULE = """\
Which function answers which exercise, in a .py file:
  - ANSWERS = {"ch02.normalize": my_function, ...} says it for any name;
  - a function (or value) named ch02_normalize answers ch02.normalize;
  - a function with the name that the exercise asks for, such as normalize, where one exercise alone asks for it.
`python -m bnbook.checking list` prints both names. A name that several exercises ask for, such as diagnose, is an error
that names them. What the file imports does not count; `NotImplemented` counts as not attempted.

In a notebook the cells are run from top to bottom, those tagged "solution" left out, and what check(...) says is
collected; where an exercise is checked more than once, the last time counts. Nothing is written.

The code of the file runs on this computer as you: open a file first if you do not know whose it is.

Exit status: 0 where nothing is wrong, 1 where something is or could not be checked, 2 where a file cannot be judged.
"""

MUTATE = """\
LAYER is a file of Python with your normalization: functions, as

    def batch_norm(x, gamma, beta, eps): ... return y, cache
    def batch_norm_backward(grad_y, cache): ... return grad_x, grad_gamma, grad_beta

or a class, under any names and in any library. Your tests are its functions test_*, which are called without arguments,
or those of the file that --tests names, which imports the layer by its name (from my_layer import batch_norm). A test
fails by raising, as with assert, or by returning False.

The mistakes are those that people make in a normalization, made in the arithmetic of your own functions, one at a
time: another axis, m - 1 for m, eps out of the root, a sign, a factor or a term less, momentum the wrong way round, a
copy less, a mode that is ignored. The file itself is never changed. Where such a change is no mistake in your code, end
its line in  # pragma: no mutate.

Both files run on this computer as you, once for every mistake and each time in a process of its own: open a file first
if you do not know whose it is.

Exit status: 0 where every mistake is seen, 1 where one is not, 2 where a file cannot be judged: it is missing or is not
Python, has no tests, or one of them fails, or does not end, before any mistake is planted.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m bnbook.checking", description="The exercises outside the pages, and what your own tests see."
    )
    commands = result.add_subparsers(dest="action", required=True, metavar="report FILE ... | list | mutate LAYER")
    sub = commands.add_parser(
        "report",
        help="check files of answers, or notebooks",
        epilog=RULE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE", help="answers in a .py file, or a notebook")
    sub.add_argument(
        "--timeout",
        type=_seconds,
        default=300,
        metavar="S",
        help="seconds for an answer or for a cell (300)",
    )
    sub.add_argument("--json", action="store_true", help="a list with one entry for each file, for programs")
    sub = commands.add_parser(
        "mutate",
        help="plant mistakes in a layer of your own: which of your tests see them",
        epilog=MUTATE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("layer", type=Path, metavar="LAYER", help="the file with your layer, such as my_layer.py")
    sub.add_argument("--tests", type=Path, metavar="FILE", help="the file with your tests, if they are not in LAYER")
    sub.add_argument("--timeout", type=_seconds, default=60, metavar="S", help="seconds for a test (60)")
    sub.add_argument("--json", action="store_true", help="for programs")
    sub = commands.add_parser("list", help="the exercises: chapter, level, kind, topic")
    sub.add_argument("--json", action="store_true", help="for programs")
    return result


def _seconds(word: str) -> float:
    if not 0 < float(word) < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is not a positive number of seconds")
    return float(word)


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        if args.action == "list":
            status = list_all(args.json)
        elif args.action == "mutate":
            status = mutate_one(args.layer, args.tests, args.timeout, args.json)
        else:
            status = report_all(args.files, args.timeout, args.json)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # of `| head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def list_all(as_json: bool) -> int:
    found = exercises()
    print(_json([exercise._asdict() for exercise in found]) if as_json else report.catalogue(found))
    return 0


def report_all(files: list[Path], timeout: float, as_json: bool) -> int:
    status, entries = 0, []
    for n, path in enumerate(files):
        try:
            found = report.report(path, timeout)
        except report.BadFile as error:
            found = {"file": str(path), "error": str(error)}
            print(f"{path}: {error}", file=sys.stderr)
            status = 2
        else:
            status = max(status, int(found["wrong"] + found["not_checked"] > 0))
            if not as_json:
                print("\n" * (n > 0) + report.text(found))
        entries.append(found)
    if as_json:
        print(_json(entries))
    return status


def mutate_one(layer: Path, tests: Path | None, timeout: float, as_json: bool) -> int:
    def dot() -> None:
        print(".", end="", file=sys.stderr, flush=True)

    try:
        found = mutate.mutate(layer, tests, timeout, **({"progress": dot} if sys.stderr.isatty() else {}))
    except report.BadFile as error:
        print(error, file=sys.stderr)
        return 2
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(_json(found) if as_json else mutate.text(found, report.width()))
    return int(found["unseen"] > 0)


def _json(entries: list[dict] | dict) -> str:
    return json.dumps(entries, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the process of an answer ends as well
    sys.exit(main())
