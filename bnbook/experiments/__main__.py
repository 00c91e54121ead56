"""python -m bnbook.experiments: the command."""

from __future__ import annotations

import argparse
import os
import shlex
import statistics as stats
import sys
from collections.abc import Sequence
from pathlib import Path

from .engine import experiment, plan, runs, statistics
from .engine.experiment import Experiment, Inventory, Study
from .engine.rows import ResultsError
from .engine.words import amount, duration, interval

QUICK_SEEDS = 2

EXAMPLES = """examples:
  python -m bnbook.experiments list
  python -m bnbook.experiments run learning_rate --jobs 2        every run of the grid that has no row yet
  python -m bnbook.experiments run learning_rate --seeds 10-14 --results elsewhere
  python -m bnbook.experiments run ladder --only device=cpu      the runs of some settings
  python -m bnbook.experiments show learning_rate

A command that was stopped, or killed, goes on where it stopped. Experiments of your own: BNBOOK_EXPERIMENTS=folder."""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m bnbook.experiments",
        description="The measured claims of the book, and its studies: run them, and see what came out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = result.add_subparsers(dest="action", required=True, metavar="list | run NAME | show NAME | status")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--results", type=Path, default=experiment.RESULTS, metavar="DIR", help="folder of the results (book/results)"
    )
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("name", metavar="NAME", help="of the experiment or study")
    one.add_argument("--quick", action="store_true", help="the small grid of minutes, in files of its own; no verdict")

    commands.add_parser("list", help="the experiments and the studies, and their questions")
    run = commands.add_parser("run", parents=[one, place], help="make the runs that have no row yet")
    run.add_argument(
        "--seeds", nargs="+", metavar="N", help="how many (5), or which (3 7, 10-14); default: what is planned"
    )
    run.add_argument("--only", nargs="+", metavar="NAME=VALUE", default=[], help="the settings that have these values")
    run.add_argument(
        "--phase", choices=["choose"], help="stop when the plan of the confirmation is written, before its first run"
    )
    run.add_argument("--jobs", type=int, metavar="J", help="worker processes, of one thread each (1)")
    run.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler (tcp://host:8786) whose workers run")
    show = commands.add_parser("show", parents=[one, place], help="a table of the rows, the comparison, the verdict")
    show.add_argument("--figure", type=Path, metavar="FILE", help="also save the figure that answers")
    commands.add_parser("status", parents=[place], help="rows done, missing and stale, time spent and left")
    return result


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        status_code = {"list": list_all, "run": run, "show": show, "status": status}[args.action](args)
        sys.stdout.flush()
        return status_code
    except BrokenPipeError:  # of `| head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("experiments: stopped; the same command goes on where it stopped", file=sys.stderr)
        return 130


def list_all(args: argparse.Namespace) -> int:
    broken = False
    for title, names in {"": experiment.names(), "Studies, which answer no claim:": experiment.study_names()}.items():
        lines = []
        for name in names:
            try:
                study = experiment.find(name)
                lines.append([name, study.chapter, study.question])
            except Exception as error:  # of one file: the others are listed
                lines.append([name, "", f"BROKEN: {error}"])
                broken = True
        print(f"\n{title}\n" if title else "", end="")
        print(table(["name", "chapter", "question"], lines))
    return 1 if broken else 0


def run(args: argparse.Namespace) -> int:
    if args.dask and args.jobs is not None:
        raise ValueError("--jobs is for processes of this machine, --dask for a cluster: give one of them")
    os.environ.update(runs.ONE_THREAD)  # before NumPy is imported, here and in the workers
    seeds = seed_list(args.seeds) if args.seeds else range(QUICK_SEEDS) if args.quick else None
    given = {"--seeds": args.seeds, "--only": args.only, "--quick": args.quick}
    options = [option if value is True else f"{option} {shlex.join(value)}" for option, value in given.items() if value]
    options += ["--phase", args.phase] if args.phase else []
    failed = runs.run(
        args.name,
        seeds=seeds,
        only=values(args.only),
        jobs=1 if args.jobs is None else args.jobs,
        quick=args.quick,
        phase=args.phase,
        results=args.results,
        dask=args.dask,
        command=" ".join(["python -m bnbook.experiments run", args.name, *options]),
    )
    study = experiment.find(args.name)
    path = study.file(args.results, args.quick)
    found = experiment.inventory(study, path, seeds, args.quick)
    print(f"{args.name}: {len(found.rows)} rows, {len(found.missing)} missing, {len(failed)} runs failed")
    if planned := study.plan(path, args.quick):
        print(f"planned: {planned.seeds} fresh seeds of {len(planned.settings)} settings, see {plan.file(path)}")
    return 1 if failed else 0


def values(given: Sequence[str]) -> dict[str, str]:
    """The values that settings must have, as given to --only."""
    if wrong := [text for text in given if "=" not in text]:
        raise ValueError(f"--only must be given as name=value, got {wrong[0]}")
    return {name: value for name, _, value in (text.partition("=") for text in given)}


def seed_list(given: Sequence[str]) -> list[int]:
    """Seeds as given to --seeds: one number is how many, several numbers or ranges are which."""
    try:
        if len(given) == 1 and "-" not in given[0]:
            return list(range(int(given[0])))
        ends = [map(int, word.split("-") if "-" in word else (word, word)) for word in given]
        ranges = [range(first, last + 1) for first, last in ends]
        if not all(ranges):
            raise ValueError
        return [seed for seeds in ranges for seed in seeds]
    except ValueError:
        raise ValueError(f"--seeds must be a number or a list as 3 7 10-14, got {' '.join(given)}") from None


def show(args: argparse.Namespace) -> int:
    study = experiment.find(args.name)
    source = experiment.find(study.rows_of)
    path = source.file(args.results, args.quick)
    found = experiment.inventory(source, path, range(QUICK_SEEDS) if args.quick else None, args.quick)
    for line in found.warnings(source, path):
        print(line, file=sys.stderr)
    if not found.rows:
        raise ResultsError(f"{path} has no rows yet: python -m bnbook.experiments run {source.name}")
    print(f"{args.name}, chapter {study.chapter}: {study.question}")
    if isinstance(study, Experiment):
        print(f"The claim: “{study.claim}” [{study.source}]")
    print(f"{experiment.provenance_line(found.rows)}\n{len(found.rows)} runs, {experiment.cost(found.rows)}")
    if found.missing:
        print(f"{len(found.missing)} planned runs are missing")
    print(f"\n{summary(found.rows, source)}")
    if isinstance(study, Experiment):
        _show_verdict(study, found.rows, args.quick)
    if args.figure:
        if not isinstance(study, Experiment):
            raise ValueError(f"--figure needs an experiment with a claim, {args.name} is a study: its chapter draws it")
        study.figure(found.rows).savefig(args.figure)
        print(f"The figure is in {args.figure}.")
    return 0


def _show_verdict(claim: Experiment, rows: Sequence[dict], quick: bool) -> None:
    print()
    rows = experiment.of_planned_seeds(claim, rows)
    try:
        print("\n\n".join(condition_lines(comparison) for comparison in claim.comparisons(rows)))
    except statistics.Incomplete as error:
        print(f"No comparison yet: {error}")
    print()
    if quick:
        print("A quick grid gives no verdict.")
        return
    found = experiment.judge(rows, claim.name)
    print(f"As it is repeated, “{claim.folklore}”\n{found.sentence}")
    if not found.outcomes:
        return  # runs are missing: the source's sentence waits as well
    where = claim.scope or "no setting is named, so in all conditions"
    print(f"\nAs its source says it ({where})\n{found.quoted.sentence if found.quoted else 'Not measured.'}")


def summary(rows: Sequence[dict], study: Study) -> str:
    """A table: per setting the number of seeds, of diverged runs, and mean and standard deviation of the metric."""
    varying = [name for name in rows[0]["setting"] if len({str(row["setting"][name]) for row in rows}) > 1]
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(experiment.key(0, row["setting"], 0), []).append(row)
    measured = [study.measured, "sd"] if study.measured else []
    lines = []
    for group in groups.values():
        diverged = sum(row["diverged"] for row in group)
        line = [*(group[0]["setting"][name] for name in varying), len(group), diverged or ""]
        lines.append(line + (mean_and_sd(group, study.measured, study.chance) if measured else []))
    return table([*varying, "seeds", "diverged", *measured], lines)


def mean_and_sd(rows: Sequence[dict], metric: str, chance: float | None) -> list[str]:
    found = [statistics.measured(row, metric, chance) for row in rows]
    found = [value for value in found if value is not None]
    digits = ".4f" if metric.endswith("accuracy") else ".4g"
    return [
        f"{stats.fmean(found):{digits}}" if found else "–",
        f"{stats.stdev(found):{digits}}" if len(found) > 1 else "–",
    ]


def condition_lines(comparison: statistics.Comparison) -> str:
    """A condition in lines: what was compared, the difference with its intervals, and what is not as planned."""
    c, difference = comparison, comparison.difference
    lines = [f"{c.name}: {c.metric} of {c.arms[0]} minus {c.arms[1]}", *c.chosen]
    if difference is None:
        lines.append("no difference: a seed has no value, or no seed is in both arms")
    elif difference.low is None:
        lines.append(f"{amount(difference.mean, c.metric)} with one seed, which has no interval")
    else:
        over_seeds = interval(difference.low, difference.high, c.metric)
        lines.append(
            f"{amount(difference.mean, c.metric)} {over_seeds}: "
            f"mean and 95 % t-interval over {len(difference.seeds)} paired seeds, sd {difference.sd:.2g}"
        )
    if over := c.over_images():
        lines.append(f"{interval(*over, c.metric)}: 95 % bootstrap interval over the test images")
    if any(c.diverged):
        lines.append("diverged: " + ", ".join(f"{n} of {arm}" for n, arm in zip(c.diverged, c.arms, strict=True)))
    if c.unpaired:
        lines.append(f"NOT PAIRED: seeds {', '.join(map(str, c.unpaired))} are in one arm only")
    return "\n  ".join(lines)


def status(args: argparse.Namespace) -> int:
    lines, damaged = [], False
    for name in experiment.names() + experiment.study_names():
        try:
            study = experiment.find(name)
            if study.rows_of != name:
                continue
            found = experiment.inventory(study, study.file(args.results))
        except Exception as error:
            print(f"{name} is broken: {error}", file=sys.stderr)
            damaged = True
            continue
        for line in found.damage:
            print(line, file=sys.stderr)
            damaged = True
        seconds = [row["seconds"] for row in found.rows if row["seconds"] is not None]
        spent = duration(sum(seconds)) if seconds or not found.rows else "?"
        left = seconds_left(found)
        left = "?" if left is None else duration(left) if found.rows else "–"
        counts = [len(found.rows), len(found.missing), sum(found.stale.values()), len(found.damage)]
        lines.append([name, *counts, spent, left])
    print(table(["name", "rows", "missing", "stale", "damaged", "spent", "left, on one core"], lines))
    return 1 if damaged else 0


def seconds_left(found: Inventory) -> float | None:
    """What the missing runs will take: as long as those of the same setting, or else as the mean run.

    None where no time was recorded.
    """
    seconds: dict[str, list[float]] = {}
    for row in found.rows:
        if row["seconds"] is not None:
            seconds.setdefault(experiment.key(0, row["setting"], 0), []).append(row["seconds"])
    every = [value for times in seconds.values() for value in times]
    if found.missing and not every:
        return None
    return sum(stats.fmean(seconds.get(experiment.key(0, setting, 0), every)) for setting, _ in found.missing)


def table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; numbers to the right."""
    cells = [[f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(not isinstance(row[i], str) or row[i][:1].isdigit() for row in rows) for i in range(len(header))]
    lines = (
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)) for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that have not every letter
    sys.exit(main())
