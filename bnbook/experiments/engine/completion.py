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
from .statistics import CONFIRM, Comparison, pilot


def plan_confirmation(study: Study, results: str | Path = RESULTS, command: str = "") -> plan.Plan | None:
    """The plan of a study's confirmation: the one there is, or a new one from the rows that choose.

    Its settings are those that the comparisons of all claims on these rows read, and those that they name `beside`; its
    seeds as many as the claim needs whose pilot scatters most (`plan.seeds_needed`). Where SEEDS is another number now
    than that of the seeds that chose, the settings are chosen again, and the number of fresh seeds stays. Where
    CONFIRMATION is larger than the number of confirmations that are planned, the next is: of the same settings, on as
    many other seeds as the one before shows to be needed (`plan.number_again`).

    Returns:
        None while runs that choose are missing, or runs of the confirmation before.

    Raises:
        ResultsError: the plan is gone, but there are rows that confirm.
        Incomplete: a comparison needs rows that the grid does not have.
        ValueError: a comparison does not say which settings it reads, has no value for a seed, or reads a setting that
            was chosen at the edge of its grid.
    """
    path = study.file(results)
    there = study.plan(path)
    if there and there.chosen_on == study.seeds:
        if len(there.confirmations) == study.confirmation:
            return there
        return _plan_again(study, path, there, command)
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
            pilots.append(_said(experiment, comparison))
    order = [setting for setting in study.settings() if key(study.version, setting, 0) in settings]
    source = provenance.provenance(command)
    if there:
        made = there.chosen_again(study.seeds, order, source)
    else:
        seeds = plan.number_of_seeds(pilots)
        made = plan.Plan(study.name, study.version, seeds, study.seeds, order, pilots, source)
    plan.save(path, made)
    return made


def _plan_again(study: Study, path: Path, there: plan.Plan, command: str) -> plan.Plan | None:
    """The plan of the confirmation after the one there is; None while runs of that are missing."""
    found = inventory(study, path)
    if found.missing or found.damage:
        return None
    rows = of_planned_seeds(study, found.rows, len(there.confirmations))
    said = [_said(claim, comparison) for claim in _claims_on(study.name) for comparison in claim.comparisons(rows)]
    made = there.confirmed_again(said, provenance.provenance(command))
    plan.save(path, made)
    return made


def _said(experiment: Experiment, comparison: Comparison) -> plan.Pilot:
    if (difference := comparison.difference) is None or difference.sd is None:
        raise ValueError(f"{experiment.name}: the comparison {comparison.name!r} has no value for a seed")
    return plan.Pilot(experiment.name, comparison.name, difference.mean, difference.sd, experiment.delta)


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
