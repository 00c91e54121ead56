"""Runs one answer in the page's Python and says what the book's checker says of it."""

import json
import linecache
import sys
import traceback
from pathlib import Path

ANSWER = "your answer"
TEMPORARY = Path("/tmp")


def judge(before, answer, call):
    """Run the statements `before`, then an answer, then the call of its checker.

    Returns:
        "passed", True, False or None as the checker says; "message"; "trace", where an error of the answer came from.
    """
    namespace = {"__name__": "__main__"}
    absent = {}
    # so that a traceback shows the line
    linecache.cache[ANSWER] = (len(answer), None, answer.splitlines(keepends=True), ANSWER)
    try:
        for statement in before:
            try:
                exec(statement, namespace)
            except ImportError as error:  # PyTorch, say, or what needs it: an answer that does not use it runs without
                absent[statement.split()[-1]] = error.name
        exec(compile(answer, ANSWER, "exec"), namespace)
        checked = eval(call, namespace)
    except BaseException as error:  # also SystemExit: it is the answer that ends, not the page
        message = f"Your code raised {type(error).__name__}: {error}"
        if isinstance(error, NameError) and error.name in absent:
            message += f". {absent[error.name]} is not in the page: the notebook of this chapter has it"
        elif isinstance(error, ModuleNotFoundError):
            message += ". The page has Python and NumPy alone: the notebook of this chapter has more"
        elif "bnbook/_data" in str(error):
            message = "Of the images the page has the validation set alone: data.load('val')"
        return {"passed": False, "message": message, "trace": trace(error)}
    error = checked.error
    return {"passed": checked.passed, "message": repr(checked), "trace": trace(error) if error else ""}


def trace(error):
    """The traceback of an error without the frames that are not the reader's."""
    told = traceback.TracebackException.from_exception(error)
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if frame.filename == ANSWER])
    told.__cause__ = told.__context__ = None
    lines = "".join(told.format()).replace(f'File "{ANSWER}", line', "Line").splitlines()
    return "\n".join(line.removeprefix("  ") for line in lines if not line.startswith("Traceback"))


def main():
    request = json.loads((TEMPORARY / "request.json").read_text(encoding="utf-8"))
    said = [judge(**each) for each in request]
    sys.stdout.flush()
    (TEMPORARY / "said.json").write_text(json.dumps(said), encoding="utf-8")
