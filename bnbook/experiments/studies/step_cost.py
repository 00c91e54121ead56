"""What an update costs with batch normalization and without it; chapter 11 turns updates into seconds with it.

    python -m bnbook.experiments.studies.step_cost                 a minute; writes book/results/step_cost.json
    python -m bnbook.experiments.studies.step_cost --rounds 5      less certain

The networks take turns, a few updates each, so that what slows the machine for a while slows both. Counted is the time
of the processor in one thread, so waiting for other programs costs nothing; but they share its caches: run it alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ... import provenance
from ...models.torch_cnn import cnn
from ...models.torch_mlp import mlp
from ..engine.experiment import RESULTS
from ..protocol import split, updates

FILE = RESULTS / "step_cost.json"
ARMS = {"with BN": "batch", "without BN": "none"}
NETWORKS: dict[str, tuple[Callable[[str], nn.Module], bool, int]] = {  # name: (network, images of 14x14, batch size)
    "CNN, 128 images of 14x14": (partial(cnn, image_size=14), True, 128),
    "CNN, 64 images of 28x28": (cnn, False, 64),
    "sigmoids, 60 images of 28x28": (partial(mlp, widths=(100,) * 3, activation="sigmoid"), False, 60),
}
ROUNDS, UPDATES = 40, 25  # updates of an arm in a round


def measure(
    make: Callable[[str], nn.Module],
    x: Tensor,
    y: Tensor,
    batch_size: int,
    rounds: int = ROUNDS,
    count: int = UPDATES,
) -> dict[str, list[float]]:
    """Processor seconds of an update of plain SGD, by arm, one value a round; the arms take turns in going first."""

    def updating(norm: str) -> Iterator:
        torch.manual_seed(0)
        return updates(make(norm), x, y, steps=(rounds + 1) * count, lr=0.01, seed=0, batch_size=batch_size)

    arms = {arm: updating(norm) for arm, norm in ARMS.items()}
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for number in range(rounds + 1):  # the first is a warm-up
        for arm in list(arms)[:: 1 if number % 2 else -1]:
            started = time.process_time()
            for _ in range(count):
                next(arms[arm])
            if number:
                seconds[arm].append(round((time.process_time() - started) / count, 7))
    return seconds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bnbook.experiments.studies.step_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=FILE, help="the file to write (book/results/step_cost.json)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of {UPDATES} updates of each (default: {ROUNDS})")
    args = parser.parse_args(arguments)
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {args.rounds}")
    torch.set_num_threads(1)
    command = " ".join(
        [
            "python -m bnbook.experiments.studies.step_cost",
            *([f"--rounds {args.rounds}"] if args.rounds != ROUNDS else []),
        ]
    )
    source = provenance.provenance(command, torch=str(torch.__version__), threads="1", load=f"{os.getloadavg()[0]:.1f}")
    seconds = {}
    for name, (make, half, batch_size) in NETWORKS.items():
        seconds[name] = measure(make, *split("train", half=half), batch_size, args.rounds)
        a, b = (sorted(values)[len(values) // 2] for values in seconds[name].values())
        print(f"{name}: {1000 * a:.2f} ms with BN, {1000 * b:.2f} ms without: × {a / b:.2f}")
    text = json.dumps({"provenance": source, "updates": UPDATES, "seconds": seconds}, indent=1)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    unfinished = args.results.with_suffix(".part")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(args.results)
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that have not every letter
    sys.exit(main())
