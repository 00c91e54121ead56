"""What happens when all planned runs are there.

When all that choose are, the confirmation is planned; when all are, most rows need no longer say which test images were
right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ... import provenance
from . import bits, plan
from .experiment import RESULTS, Experiment, Study, find, inventory, key, names, of_planned_seeds, row_key
from .rows import ResultsError
from .statistics import CONFIRM, pilot


def plan_confirmation(study: Study, results: str | Path = RESULTS, command: str = "") -> plan.Plan | None:
    """The plan of a study's confirmation: the one there is, or a new one from the rows that choose.

    Its settings are those that the comparisons of all claims on these rows read, and those that they name `beside`; its
    seeds as many as the claim needs whose pilot scatters most (`plan.seeds_needed`). Where SEEDS is another number now
    than that of the seeds that chose, the settings are chosen again, and the number of fresh seeds stays.

    Returns:
        None while runs that choose are missing.

    Raises:
        ResultsError: the plan is gone, but there are rows that confirm.
        Incomplete: a comparison needs rows that the grid does not have.
        ValueError: a comparison does not say which settings it reads, has no value for a seed, or reads a setting that
            was chosen at the edge of its grid.
    """
    path = study.file(results)
    there = study.plan(path)
    if there and there.chosen_on == study.seeds:
        return there
    found = inventory(study, path, range(study.seeds))
    if found.missing or found.damage:
        return None
    if not there and any(row.get("phase") == CONFIRM for row in found.rows):
        raise ResultsError(f"{plan.file(path)} is gone, but rows that confirm are there: restore it")
    settings, pilots = {}, []
    rows = pilot(of_planned_seeds(study, found.rows))
    for experiment in _claims_on(study.name):
        settings |= {key(study.version, setting, 0): setting for setting in experiment.beside(rows)}
        for comparison in experiment.comparisons(rows):
            if not comparison.settings:
                raise ValueError(f"{experiment.name}: the comparison {comparison.name!r} must name its settings")
            if comparison.edges:
                edges = " and ".join(comparison.edges)
                raise ValueError(
                    f"{experiment.name}, {comparison.name}: the best {edges} lies at the edge of its grid: extend the"
                    " grid, nothing is confirmed before"
                )
            settings |= {key(study.version, setting, 0): setting for setting in comparison.settings}
            if (difference := comparison.difference) is None or difference.sd is None:
                raise ValueError(f"{experiment.name}: the comparison {comparison.name!r} has no value for a seed")
            said = (experiment.name, comparison.name, difference.mean, difference.sd, experiment.delta)
            pilots.append(plan.Pilot(*said))
    order = [setting for setting in study.settings() if key(study.version, setting, 0) in settings]
    source = provenance.provenance(command)
    if there:
        made = there.chosen_again(study.seeds, order, source)
    else:
        seeds = plan.number_of_seeds(pilots)
        made = plan.Plan(study.name, study.version, seeds, study.seeds, order, pilots, source)
    plan.save(path, made)
    return made


def _claims_on(name: str) -> list[Experiment]:
    """The experiments that read the rows of a study."""
    experiments = [find(other) for other in names()]
    return [e for e in experiments if isinstance(e, Experiment) and e.rows_of == name]


def keep_chosen_bits(name: str, results: str | Path = RESULTS) -> bool:
    """Move the bits of right answers of the rows that comparisons read to NAME.correct.npz, and drop all others.

    Rows of seeds that were not planned keep theirs. Killed at any moment it loses nothing: the bits are in the new file
    before they leave the rows, and what is left to do is done by the next command that makes runs of this experiment.
    What was dropped is made again by its seed.

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
        found = inventory(experiment, path)
        if found.missing or (experiment.confirm and not experiment.plan(path)) or found.damage:
            return None
        chosen = chosen_rows(name, found.rows)
        kept = {row_key(row): row["correct"] for row in found.rows if row_key(row) in chosen and row["correct"]}
        if kept:
            bits.save(path, kept)
        planned = of_planned_seeds(experiment, found.rows)
        seen = {row_key(row) for row in planned if row.get("correct")}
        return lambda row: row | {"correct": None} if row_key(row) in seen else row

    return any(row.get("correct") for row in of_planned_seeds(experiment, rows.read().rows)) and rows.rewrite(plan)


def chosen_rows(name: str, rows: Sequence[Mapping]) -> set[str]:
    """The keys of the rows whose bits the comparisons of the experiments on these rows read."""
    marked = [
        row | {"correct": row_key(row)} if "correct" in row else row for row in of_planned_seeds(find(name), rows)
    ]
    comparisons = [comparison for experiment in _claims_on(name) for comparison in experiment.comparisons(marked)]
    return {key for comparison in comparisons for arm in comparison.correct or () for key in arm.values()}
