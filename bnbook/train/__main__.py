"""`python -m bnbook.train`: the command."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict, fields
from pathlib import Path

import torch

from ..provenance import write_atomically
from . import CheckpointError, Settings, describe, train
from .checkpoint import NAME, first_line, make_sure_of
from .processes import count, rank
from .report import summary
from .settings import WORDS
from .update import PreparationError

RESULTS = Path("book/results")

DESCRIPTION = """\
Train a network of the book with or without batch normalization, on whatever device there is.

  python -m bnbook.train                                      the recipe of the book: 10,000 images, 5 epochs
  python -m bnbook.train --norm none --lr 0.03 --data full    without BN, the official 60,000 images
  python -m bnbook.train --checkpoint runs/a --out a.json     can be killed at any moment ...
  python -m bnbook.train --checkpoint runs/a --out a.json --resume            ... and goes on
  torchrun --nproc_per_node 2 -m bnbook.train                 two processes, each with half of every batch
  python -m bnbook.train --device cuda --capture graph        the update as a CUDA graph

The full data set is found or fetched as `bnbook.data.load` says; BNBOOK_DATA names a folder that holds it. After Ctrl-C
the exit status is 130, after a bad command 2, after another failure 1.
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str):
        self.exit(2, f"train: {message}; --help explains\n")


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("needs a name, got ''")
    return Path(text)


def parser() -> argparse.ArgumentParser:
    """The options: the settings of a run, and what is to be done with it."""
    made = _Parser(
        prog="python -m bnbook.train",
        usage="%(prog)s [settings] [--checkpoint DIR [--resume]] [--out FILE.json] [--report]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    training = made.add_argument_group("settings of a run")
    for setting in fields(Settings):
        words = WORDS.get(setting.name)
        kind = next((kind for kind in (int, float) if setting.type.startswith(kind.__name__)), str)
        default = "" if setting.default is None else f" (default: {setting.default})"
        training.add_argument(
            "--" + setting.name.replace("_", "-"),
            type=kind,
            metavar="{" + ",".join(words) + "}" if words else kind.__name__.upper().replace("STR", "NAME"),
            help=setting.metadata["help"].replace("%", "%%") + default,
            **({"nargs": "?", "const": "default"} if setting.name == "compile" else {}),
        )
    keeping = made.add_argument_group("keeping it")
    keeping.add_argument("--checkpoint", type=_path, metavar="DIR", help="keep the state of the run in this folder")
    keeping.add_argument(
        "--checkpoint-every", type=float, metavar="SECONDS", help="and after every epoch (default: 30)"
    )
    keeping.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one yet")
    keeping.add_argument("--out", type=_path, metavar="FILE.json", help="write what the run was")
    keeping.add_argument(
        "--report",
        action="store_true",
        help=f"print what the run was, and write it to --out, or to a file in {RESULTS}: device, driver, versions, "
        "commit, command, accuracies, seconds an epoch and to them, images per second, memory",
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status; errors are one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = vars(parser().parse_args(arguments))
    try:
        start = ["torchrun", "--nproc_per_node", str(count())] if count() > 1 else ["python"]
        rank()
    except ValueError as error:
        return _fail(error, 2)
    command = shlex.join([*start, "-m", "bnbook.train", *arguments])
    try:
        return _train(dict(given), command)
    except KeyboardInterrupt:
        if _first():
            print(f"train: stopped; {_how_to_go_on(given, command)}", file=sys.stderr)
        return 130
    except (CheckpointError, PreparationError, OSError, ModuleNotFoundError) as error:
        return _fail(error, 1)
    except torch.OutOfMemoryError as error:
        return _fail(f"{first_line(error)} Take a smaller --batch-size, or --loader dataloader", 1)
    except ValueError as error:
        return _fail(error, 2)


def _first() -> bool:
    """Whether this is the process that shows and writes."""
    return rank() == 0


def _fail(error: Exception | str, status: int) -> int:
    print("train: " + " ".join(str(error).split()), file=sys.stderr)
    return status


def _train(given: dict, command: str) -> int:
    """One run; what it was is written by the first process."""
    out, wants_report = given.pop("out", None), given.pop("report", False)
    how = {name: given.pop(name) for name in ("checkpoint", "checkpoint_every", "resume") if name in given}
    if "checkpoint_every" in how and "checkpoint" not in how:
        raise ValueError("--checkpoint-every needs the folder of the checkpoint: give --checkpoint DIR with it")
    settings = Settings(**given)
    resolved = settings.resolved(count())
    if wants_report and out is None:
        out = RESULTS / "train_{model}_{norm}_{data}_{device}_seed{seed}.json".format(**asdict(resolved))
    if out and _first():
        _make_sure_of(out, resolved, how.get("resume", False))
    result = train(settings, **how)
    if _first():
        row = describe(result, command)
        # First: what was reached is known also where the file cannot be written any more.
        print(summary(row) if wants_report else summary(row).partition("\n")[0], flush=True)
        if out:
            text = json.dumps(row, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            # Bytes of the command that are no text are lone surrogates, which JSON writes as this handler does.
            write_atomically(out, text.encode(errors="backslashreplace"))
    return 0


def _make_sure_of(out: Path, settings: Settings, resume: bool) -> None:
    """Before the first update: the file can be written, and holds no other run."""
    try:
        if out.is_file() or not out.exists():
            make_sure_of(out.parent, out.name)
    except OSError as error:
        raise OSError(f"{out} cannot be written ({error.strerror}): name another file with --out") from None
    if out.exists():
        if not out.is_file():
            raise OSError(f"{out} is not a file: name another one with --out")
        try:
            before = json.loads(out.read_bytes())["settings"]
            same = before == asdict(settings) | {"threads": before["threads"]}
        except (ValueError, KeyError, TypeError):
            same = False
        if not (resume and same):
            raise FileExistsError(f"{out} exists: delete it, or name another file with --out")


def _how_to_go_on(given: dict, command: str) -> str:
    folder = given.get("checkpoint")
    if folder is None:
        return "nothing is kept without --checkpoint DIR"
    if not (folder / NAME).exists():
        return f"there was no checkpoint yet; begin with: {command}"
    return f"go on with: {command}" + ("" if given.get("resume") else " --resume")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that have not every letter
    sys.exit(main())
