"""The ladder: the same training made faster rung by rung, each with and without batch normalization, over seeds.

Every rung makes the same updates with the same batches as the one below and is scored on the same images; what differs
is how the work reaches the device. Larger batches change the updates themselves and stand apart.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from ...train import report
from ...train.checkpoint import make_sure_of
from ...train.loop import train
from ...train.settings import Settings, find_device
from ..engine import rows as results


class Rung(NamedTuple):
    """One rung: what it adds to the one below, and the settings that it changes from the baseline."""

    adds: str
    changes: dict


_CARD = {"loader": "device"}
_CAPTURED = _CARD | {"capture": "graph"}
_BFLOAT16 = _CAPTURED | {"precision": "bfloat16", "memory_format": "channels_last"}
_COMPILED = _BFLOAT16 | {"compile": "default"}

RUNGS = {
    "baseline": Rung("TensorDataset, DataLoader with 4 workers and pinned memory, float32", {"loader": "dataloader"}),
    "device": Rung("all images on the device", _CARD),
    "captured": Rung("the update recorded as a CUDA graph", _CAPTURED),
    "bfloat16": Rung("bfloat16 and channels-last", _BFLOAT16),
    "compiled": Rung("the network compiled by torch.compile", _COMPILED),
    "large": Rung("batches of 512, with another rate: other updates, not comparable", _COMPILED | {"batch_size": 512}),
}
DIFFER = tuple({name: None for rung in RUNGS.values() for name in rung.changes if name != "batch_size"})
NORMS = ("batch", "none")
SEEDS = 5
RATES = {"batch": 0.1, "none": 0.03}
LARGE_RATE = 2.0  # times the rate for batches of 64
BASE = {"data": "full", "evaluate": "test", "evaluations": 4, "epochs": 5, "batch_size": 64, "workers": 4}


def settings(rung: str, norm: str, seed: int, given: Mapping[str, object]) -> Settings:
    """The settings of one run of the ladder.

    Without a CUDA device there are no CUDA graphs: the rungs above "captured" then leave the recording out, and their
    rows say so.

    Args:
        given: settings that replace those of all rungs; the large batches stay what they are.

    Raises:
        ValueError: an unknown rung, a setting that is not accepted, or one in which the rungs differ.
    """
    if rung not in RUNGS:
        raise ValueError(f"rungs must be among {', '.join(map(repr, RUNGS))}, got {rung!r}")
    if fixed := [name for name in DIFFER if name in given]:
        raise ValueError(f"{', '.join(fixed)} cannot be given: in {', '.join(DIFFER)} the rungs differ")
    changes = dict(RUNGS[rung].changes)
    if rung != "captured" and find_device(str(given.get("device", "auto"))) != "cuda":
        changes.pop("capture", None)
    lr = RATES.get(norm, min(RATES.values())) * (LARGE_RATE if rung == "large" else 1)
    return Settings(**{**BASE, "lr": lr, **given, **changes, "norm": norm, "seed": seed})


def climb(
    folder: str | Path,
    *,
    rungs: Sequence[str] = tuple(RUNGS),
    norms: Sequence[str] = NORMS,
    seeds: int = SEEDS,
    given: Mapping[str, object] | None = None,
    command: str = "",
    progress: bool = True,
) -> bool:
    """Make the runs that are missing in the folder's file of this device, ladder_cuda.jsonl or ladder_cpu.jsonl.

    Every run is a row, appended when the run is finished: whatever is killed goes on where it stopped. A run that is
    not possible here, or fails, is named with the reason and leaves no row.

    Args:
        seeds: how many, from 0 on.

    Returns:
        whether all runs of the rungs that exist on this device are there.
    """
    given = given or {}
    runs = [
        (rung, norm, settings(rung, norm, seed, given)) for seed in range(seeds) for rung in rungs for norm in norms
    ]
    device = report.device(find_device(str(given.get("device", "auto"))))
    path = Path(folder) / f"ladder_{device['type']}.jsonl"
    done = {_key(row) for row in read(path)}
    complete = True
    for number, (rung, norm, wanted) in enumerate(runs, start=1):
        title = f"{number}/{len(runs)} {rung}, norm {norm}, seed {wanted.seed}"
        try:
            wanted = wanted.resolved()
        except ValueError as error:
            print(f"{title}: skipped, {error}", flush=True)
            complete &= rung == "captured" and device["type"] != "cuda"
            continue
        row = {"version": report.VERSION, "rung": rung, "adds": RUNGS[rung].adds}
        if _key(row | {"settings": asdict(wanted), "device": device}) in done:
            print(f"{title}: is there", flush=True)
            continue
        _make_sure_of(path)
        print(title, flush=True)
        try:
            result = train(wanted, progress=progress)
        except RuntimeError:
            traceback.print_exc()
            print(f"{title}: failed, as said above", flush=True)
            complete = False
            continue
        row |= report.describe(result, command)
        results.append(path, row, _key)
        print(
            f"  {row['seconds_per_epoch']:.3f} s an epoch, test accuracy {row['final']['test_accuracy']:.4f}",
            flush=True,
        )
    return complete


def _make_sure_of(path: Path) -> None:
    """Before a run: its row can be appended."""
    try:
        make_sure_of(path.parent)
        if path.exists():
            open(path, "r+b").close()
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}): name another folder with --out") from None


def read(path: str | Path) -> list[dict]:
    """The rows of a ladder's file that are of this version; none where there is no file.

    Raises:
        ResultsError: a line that is not a row, or two rows of one run.
    """
    contents = results.read(path, _problem, _key)
    if contents.damage:
        raise results.ResultsError(contents.damage[0])
    return [row for row in contents.rows if row["version"] == report.VERSION]


def _problem(row: dict) -> str | None:
    return "has no rung" if "rung" not in row else report.problem(row)


def _key(row: Mapping) -> str:
    """What a row is known by: one run on one kind of device."""
    known = [row.get("version"), row.get("rung"), (row.get("device") or {}).get("name"), row.get("settings")]
    return json.dumps(known, sort_keys=True)
