"""Train the NumPy network with and without batch normalization over a grid of learning rates; chapter 8 reads the rows.

    python -m bnbook.experiments.studies.numpy_cnn             all runs that are missing in book/results/numpy_cnn.jsonl
    python -m bnbook.experiments.studies.numpy_cnn --seeds 0 1 fewer of them

Every run is one line of JSON, appended when the run is finished. A command that was stopped goes on where it stopped.
The best rate of an arm is the one with the highest validation accuracy; while it lies at the edge of the grid, the grid
is widened. The test images are scored after the last epoch of every run and choose nothing.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ... import data, nn, optim
from ...models.numpy_cnn import cnn
from ...optim import cosine
from ...probes import record, spread
from ...provenance import provenance
from ..engine import rows as files
from ..engine.rows import ResultsError

VERSION = 1  # of what a run does and a row holds; rows of another version are not read as results

RESULTS = Path("book/results/numpy_cnn.jsonl")
ARMS = {"with BN": True, "without BN": False}
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
RATE_LIMITS = (1e-5, 100.0)  # the grid is not widened beyond them
SEEDS = (0, 1, 2)
EPOCHS, BATCH_SIZE, MOMENTUM = 5, 64, 0.9

EVALUATION_BATCH = 100  # larger ones leave the processor's cache and take longer
XRAY_BATCH = 256
DETAILED_SEED = 0  # the seed whose rows also hold the X-ray, γ, β, the filters and the confusion matrix

Splits = Mapping[str, tuple[np.ndarray, np.ndarray]]
FIELDS = (
    "version arm lr seed epochs batch_size momentum train_images steps train_loss val_accuracy test_accuracy diverged"
    " provenance"
).split()


@dataclass(frozen=True)
class Run:
    """The settings of one run: what its row is known by."""

    arm: str
    lr: float
    seed: int
    epochs: int = EPOCHS
    batch_size: int = BATCH_SIZE
    momentum: float = MOMENTUM
    train_images: int = 10_000

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"arm must be one of {', '.join(map(repr, ARMS))}, got {self.arm!r}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if self.epochs < 1 or not 2 <= self.batch_size <= self.train_images:
            raise ValueError(
                f"epochs must be at least 1 and batch_size from 2 to {self.train_images}, "
                f"got {self.epochs} and {self.batch_size}"
            )


# One run


def predict(model: nn.Module, images: np.ndarray, batch_size: int = EVALUATION_BATCH) -> np.ndarray:
    """The logits (N, 10) of all images in evaluation mode; the mode of the model is put back."""
    training = model.training
    model.eval()
    labels = np.zeros(len(images), np.int64)
    logits = np.concatenate([model(x) for x, _ in data.batches(images, labels, batch_size)])
    model.train(training)
    return logits


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose largest logit is that of their label."""
    return float((predict(model, images).argmax(axis=1) == labels).mean())


def spreads(model: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """The X-ray in numbers: per layer the size over the batch of a unit's outputs and of their gradients."""
    recorded = record(model, images, labels)
    return {
        name: [_number(spread(output)[0]), _number(spread(gradient, center=False)[0])]
        for name, (output, gradient) in recorded.items()
    }


def train(run: Run, splits: Splits, after_step: Callable[[], None] = lambda: None) -> dict:
    """One run from its initial values to its row (without provenance).

    Both arms draw the same initial weights from `run.seed` and see the same batches in the same order.
    """
    images, labels = (array[: run.train_images] for array in splits["train"])
    model = cnn(ARMS[run.arm], rng=run.seed)
    loss_function = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), run.lr, run.momentum)
    order = np.random.default_rng([run.seed, 1])  # a stream of its own: the initial values have used the first
    steps_per_epoch = len(images) // run.batch_size
    steps = run.epochs * steps_per_epoch
    detailed = run.seed == DETAILED_SEED
    looked_at = [array[:XRAY_BATCH] for array in splits["val"]]

    xray, before = {}, model.state_dict()
    train_loss, val_accuracy, step = [], [], 0
    with np.errstate(all="ignore"):  # a run that diverges is a result, not a warning
        if detailed:
            xray["0"] = spreads(model, *looked_at)
        for _ in range(run.epochs):
            losses = []
            for x, target in data.batches(images, labels, run.batch_size, rng=order, drop_last=True):
                optimizer.lr = cosine(step, steps, run.lr)
                optimizer.zero_grad()
                losses.append(float(loss_function(model(x), target)))
                model.backward(loss_function.backward())
                optimizer.step()
                step += 1
                after_step()
                if detailed and step == 10:
                    xray["10"] = spreads(model, *looked_at)
            train_loss.append(_number(np.mean(losses)))
            val_accuracy.append(accuracy(model, *splits["val"]))
            if detailed and step in (steps_per_epoch, steps):
                xray[str(step)] = spreads(model, *looked_at)
        predicted = predict(model, splits["test"][0]).argmax(axis=1)

    target = splits["test"][1]
    row = {
        "version": VERSION,
        **asdict(run),
        "steps": steps,
        "train_loss": train_loss,
        "val_accuracy": val_accuracy,
        "test_accuracy": float((predicted == target).mean()),
        "diverged": train_loss[-1] is None,
    }
    if detailed:
        confusion = np.zeros((10, 10), int)
        np.add.at(confusion, (target, predicted), 1)
        filters = {"initial": _filters(before), "final": _filters(model.state_dict())}
        row |= {"xray": xray, "confusion": confusion.tolist(), "filters": filters, "learned": _learned(model)}
    return row


def _filters(state: Mapping[str, np.ndarray]) -> list:
    return [[_number(v) for v in kernel.ravel()] for kernel in state["conv.weight"]]


def _learned(model: nn.Module) -> dict[str, list]:
    """γ and β of every batch normalization of the model."""
    return {name: [_number(v) for v in p.data] for name, p in model.named_parameters() if name.startswith("bn")}


def _number(value: float) -> float | None:
    """Six significant digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


# The results file


def read(path: str | Path = RESULTS) -> files.Contents:
    """What a results file holds, the rows of every version among it.

    Raises:
        ResultsError: a line that is not a row, or two rows of one run.
    """
    contents = files.read(path, _problem, _key)
    if contents.damage:
        raise ResultsError(contents.damage[0])
    return contents


def results(path: str | Path = RESULTS) -> list[dict]:
    """The rows of this version, in the order of arm, rate and seed."""
    rows = [row for row in read(path).rows if row["version"] == VERSION]
    return sorted(rows, key=lambda row: (list(ARMS).index(row["arm"]), row["lr"], row["seed"]))


def _problem(row: dict) -> str | None:
    missing = [field for field in FIELDS if field not in row]
    return f"has no {', '.join(missing)}" if missing else None


def _key(row: Mapping) -> tuple:
    return tuple(row.get(name) for name in ("version", *Run.__dataclass_fields__))


def _run(row: Mapping) -> Run:
    return Run(**{name: row[name] for name in Run.__dataclass_fields__})


# The choice of the rate, and the command


def mean_validation(rows: Iterable[Mapping], arm: str) -> dict[float, float]:
    """Rate → mean validation accuracy after the last epoch over the seeds of one arm."""
    by_rate: dict[float, list[float]] = {}
    for row in rows:
        if row["arm"] == arm:
            by_rate.setdefault(row["lr"], []).append(row["val_accuracy"][-1])
    return {lr: float(np.mean(values)) for lr, values in sorted(by_rate.items())}


def best_rate(rows: Iterable[Mapping], arm: str) -> float:
    """The rate with the highest mean validation accuracy; of equals the smaller."""
    means = mean_validation(rows, arm)
    if not means:
        raise ValueError(f"there is no row of the arm {arm!r}")
    return max(means, key=means.get)


def widened(rates: Sequence[float], best: float) -> float | None:
    """The next rate beyond the edge on which the best one lies, on the grid 1, 3, 10, 30, …; None inside the grid."""
    if min(rates) < best < max(rates):
        return None
    exponent = round(2 * math.log10(best)) + (1 if best == max(rates) else -1)
    return float(f"{10 ** (exponent / 2):.0e}")


def run_all(
    path: str | Path = RESULTS,
    *,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
    splits: Splits | None = None,
    command: str = "",
    progress: bool = True,
    **settings: int,
) -> list[dict]:
    """Make the rows that are missing, widening the grid of both arms until both best rates lie inside; all rows."""
    path, rates = Path(path), sorted(rates)
    splits = splits or {split: data.load(split) for split in data.SPLITS}
    rows, _, truncated = read(path)
    if truncated:
        print(f"{path}: the last line is truncated; it is dropped and its run repeated", file=sys.stderr)
    stale = sum(row["version"] != VERSION for row in rows)
    if stale:
        print(f"{path}: {stale} rows are of another version than {VERSION} and are not used", file=sys.stderr)
    source = provenance(command)
    while True:
        # The arms have the same rates, so that they can also be compared at equal ones.
        grid = [Run(arm, lr, seed, **settings) for lr in rates for seed in seeds for arm in ARMS]
        done = {_run(row) for row in rows if row["version"] == VERSION}
        missing = [run for run in grid if run not in done]
        for number, run in enumerate(missing, start=1):
            title = f"{number}/{len(missing)} {run.arm}, lr {run.lr:g}, seed {run.seed}"
            steps = run.epochs * (run.train_images // run.batch_size)
            with _bar(title, steps, progress) as bar:
                row = train(run, splits, bar.update) | {"provenance": source}
            files.append(path, row, _key)
            rows.append(row)
        of_grid = [row for row in rows if row["version"] == VERSION and _run(row) in grid]
        further = {widened(rates, best_rate(of_grid, arm)) for arm in ARMS} - {None}
        if not further:
            return of_grid
        if min(further) < RATE_LIMITS[0] or max(further) > RATE_LIMITS[1]:
            raise ValueError(f"no best rate inside the grid between {RATE_LIMITS[0]:g} and {RATE_LIMITS[1]:g}")
        rates = sorted({*rates, *further})


class _Silent:
    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self) -> None:
        pass


def _bar(title: str, steps: int, wanted: bool):
    """A progress bar; without tqdm, a line."""
    if not wanted:
        return _Silent()
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        print(title, flush=True)
        return _Silent()
    return tqdm(total=steps, desc=title, unit="step", mininterval=1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bnbook.experiments.studies.numpy_cnn",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"the file of the rows (default: {RESULTS})")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates to start with")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the initial values and the batches")
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, help=f"passes over the training images (default: {EPOCHS})"
    )
    args = parser.parse_args(arguments)
    chosen = [
        f"--{name} {' '.join(f'{v:g}' for v in np.atleast_1d(value))}"
        for name, value, default in (
            ("rates", args.rates, RATES),
            ("seeds", args.seeds, SEEDS),
            ("epochs", args.epochs, EPOCHS),
        )
        if value != default
    ]
    try:
        rows = run_all(
            args.results,
            rates=args.rates,
            seeds=args.seeds,
            epochs=args.epochs,
            command=" ".join(["python -m bnbook.experiments.studies.numpy_cnn", *chosen]),
        )
    except (ResultsError, ValueError) as error:
        print(f"train_numpy: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train_numpy: stopped; the same command goes on where it stopped", file=sys.stderr)
        return 130
    for arm in ARMS:
        lr = best_rate(rows, arm)
        scores = [row["test_accuracy"] for row in rows if row["arm"] == arm and row["lr"] == lr]
        print(f"{arm:<11} best rate {lr:g}: test accuracy {np.mean(scores):.4f} (mean of {len(scores)} seeds)")
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that have not every letter
    sys.exit(main())
