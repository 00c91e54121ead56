"""What happens when all planned runs are there: most rows need no longer say which test images were right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import bits
from .experiment import RESULTS, Experiment, find, inventory, names, row_key


def keep_chosen_bits(name: str, results: str | Path = RESULTS) -> bool:
    """Move the bits of right answers of the rows that comparisons read to NAME.correct.npz, and drop all others.

    Killed at any moment it loses nothing: the bits are in the new file before they leave the rows, and what is left to
    do is done by the next command that makes runs of this experiment. What was dropped is made again by its seed.

    Returns:
        whether something was moved or dropped; not while planned runs are missing, or lines are damaged.

    Raises:
        ValueError: an experiment on these rows is broken, so that it cannot be known which rows it reads.
        Incomplete: one of them needs more rows than are planned.
    """
    experiment = find(name)
    path = experiment.file(results)
    rows = experiment.rows(path)

    def plan() -> Callable[[dict], dict] | None:
        found = inventory(experiment, path, range(experiment.seeds))
        if found.missing or found.damage:
            return None
        chosen = chosen_rows(name, found.rows)
        kept = {row_key(row): row["correct"] for row in found.rows if row_key(row) in chosen and row["correct"]}
        if kept:
            bits.save(path, kept)
        seen = {row_key(row) for row in found.rows if row.get("correct")}
        return lambda row: row | {"correct": None} if row_key(row) in seen else row

    return any(row.get("correct") for row in rows.read().rows) and rows.rewrite(plan)


def chosen_rows(name: str, rows: Sequence[Mapping]) -> set[str]:
    """The keys of the rows whose bits the comparisons of the experiments on these rows read."""
    marked = [row | {"correct": row_key(row)} if "correct" in row else row for row in rows]
    experiments = [find(other) for other in names()]
    comparisons = [
        comparison
        for experiment in experiments
        if isinstance(experiment, Experiment) and experiment.rows_of == name
        for comparison in experiment.comparisons(marked)
    ]
    return {key for comparison in comparisons for arm in comparison.correct or () for key in arm.values()}
