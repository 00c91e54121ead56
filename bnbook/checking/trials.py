"""The reader's tests against one mistake in the reader's layer: what `mutate` starts in a process of its own.

    python -m bnbook.checking.trials my_layer.py OUT TIMEOUT TESTS NUMBER

TESTS is the file with the tests, which may be the layer's own; NUMBER is that of the mistake, −1 for none. OUT receives
lines of JSON, as in `answers`.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from .answers import BadFile, Say, TimedOut, limited, line_of, load, words_of
from .mutations import mistakes, source

PASSED, FAILED, RAISED, ENDLESS = "passed", "failed", "raised", "no end"


def tests_of(module: ModuleType) -> dict[str, Callable[[], Any]]:
    """The functions `test_*` of a module, in its order.

    Raises:
        BadFile: there is none, or one of them wants arguments.
    """
    found = {name: f for name, f in vars(module).items() if name.startswith("test_") and isinstance(f, FunctionType)}
    if not found:
        raise BadFile("there is no test in it: a test is a function whose name begins with test_")
    for name, function in found.items():
        wanted = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        if wanted:
            raise BadFile(f"{name} wants {', '.join(wanted)}: a test is called without arguments")
    return found


def outcome(test: Callable[[], Any], timeout: float) -> tuple[str, BaseException | None]:
    """What becomes of a test; one that returns False has failed as well. Random numbers begin at the same place."""
    random.seed(0)
    np.random.seed(0)
    try:
        with limited(timeout):
            result = test()
    except AssertionError as error:
        return FAILED, error
    except TimedOut as error:
        return ENDLESS, error
    except BaseException as error:  # SystemExit, too
        return RAISED, error
    return (FAILED if isinstance(result, bool | np.bool_) and not result else PASSED), None


def try_tests(path: Path, say: Say, timeout: float, tests: Path, number: int) -> None:
    """Say how every test ends, with one mistake in the layer."""
    file = path
    try:
        with limited(timeout):
            module = load(path, path.stem, mistakes(source(path))[number].tree if number >= 0 else None)
            file = tests
            if tests != path:
                module = load(tests, tests.stem)
            found = tests_of(module)
    except BadFile as error:
        say(bad=f"{file.name}: {error}")
        return
    except TimedOut:
        say(bad=f"{file.name}: it does not end within {timeout:g} s: keep what is not the layer out of it")
        return
    say(tests=list(found))
    for name, test in found.items():
        result, error = outcome(test, timeout)
        say(
            test=name,
            outcome=result,
            message=words_of(error) if error and result != ENDLESS else "",
            line=line_of(error, str(tests)) if error else None,
        )


def main(file: str, out: str, timeout: str, tests: str, number: str) -> None:
    path, of_tests = Path(file).resolve(), Path(tests).resolve()
    with open(out, "a", encoding="utf-8") as lines:

        def say(**line: Any) -> None:
            lines.write(json.dumps(line) + "\n")
            lines.flush()

        os.chdir(of_tests.parent)
        sys.path[:0] = dict.fromkeys((str(of_tests.parent), str(path.parent)))
        try_tests(path, say, float(timeout), of_tests, int(number))
        say(done=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
