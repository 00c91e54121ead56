"""Making the runs of an experiment's grid, in this process, in several, or on a cluster.

One process writes: workers return their rows to the command, which appends each to the results file as it comes. So a
command that is killed at any moment leaves whole rows, and the same command goes on where it stopped. Two commands at
once may both make a run, but the file keeps one row of it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

from ... import provenance
from . import bits, plan
from .completion import keep_chosen_bits, plan_confirmation
from .experiment import FIELDS, RESULTS, Study, Task, find, inventory, key, row_key
from .progress import Bar
from .statistics import CHOOSE, CONFIRM
from .words import as_text, pairs

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)

FRAMEWORKS = ("torch", "tensorflow", "keras")  # a row tells the versions of those that are loaded

Outcome = tuple[str, dict | None, str]  # key of the run; its row, or None and why


def run(
    name: str,
    *,
    seeds: Sequence[int] | None = None,
    only: Mapping[str, str] | None = None,
    jobs: int = 1,
    quick: bool = False,
    phase: str | None = None,
    results: str | Path = RESULTS,
    dask: str | None = None,
    command: str = "",
    progress: bool = True,
) -> list[Task]:
    """Make the rows that a results file lacks; what goes wrong is told on the standard error.

    Of an experiment that confirms, first those that choose; once they are all there, the plan of the confirmation is
    written beside them, and its rows are made. What is planned is not changed any more.

    Args:
        name: of the experiment or study.
        seeds: those of every setting; as many as are planned if left out. Fresh seeds, 100 and on, are those of the
            plan here or in the book's results, of the settings that it confirms.
        only: values that a setting must have to be run, as text: {"norm": "batch", "lr": "0.1"}.
        jobs: number of worker processes; with 1 the runs are made in this process.
        quick: the small grid, into a file of its own; nothing is confirmed.
        phase: "choose" stops when the plan is written, so that it can be published before its rows are made.
        dask: address of a Dask scheduler whose workers make the runs instead.
        command: kept with the rows.
        progress: whether to show a bar over the runs, with the time left.

    Returns:
        the runs that raised: they have no row.

    Raises:
        ValueError: an unknown experiment, arguments out of range, or a folder that cannot be written.
    """
    study = find(name)
    if (source := study.rows_of) != name:
        raise ValueError(f"{name} has no runs of its own, it reads those of {source}: run {source}")
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds)):
        raise ValueError(f"seeds must be at least one, different and not negative, got {list(seeds)}")
    if phase not in (None, CHOOSE):
        raise ValueError(f"phase must be {CHOOSE} or left out, got {phase!r}")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    asked = chosen_settings(study.settings(quick), only or {})
    path = study.file(results, quick)
    planned = study.plan(path, quick) or study.plan(study.file(), quick)  # the second makes rows again elsewhere
    if fresh := [seed for seed in seeds or () if study.confirm and seed >= plan.FIRST]:
        if not planned or not set(fresh) <= {seed for plan in planned.confirmations for seed in plan.fresh}:
            raise ValueError(f"seeds from {plan.FIRST} on must be those of the plan, got {fresh}")

    def make(seeds: Iterable[int] | None, planned: plan.Plan | None) -> list[Task]:
        found = inventory(study, path, seeds, quick)
        for line in found.warnings(study, path):
            print(line, file=sys.stderr)
        pending = {
            key(study.version, setting, seed): (setting, seed)
            for setting, seed in found.missing
            if setting in asked and (not fresh or seed < plan.FIRST or setting in planned.settings)
        }
        if pending:
            _make_folder(path.parent)
        with Bar(name, len(pending), progress) as bar:
            return _Runs(study, path, command, pending, bar, planned).make(jobs, dask)

    failed = make(range(study.seeds) if seeds is None else seeds, planned)
    if study.confirm and seeds is None and not quick:
        while (planned := plan_confirmation(study, results, command)) and phase is None and not failed:
            failed += make(None, planned)
            if len(planned.confirmations) == study.confirmation:
                break
    if not quick:
        _keep_chosen_bits(name, results)
    return failed


def chosen_settings(settings: Sequence[dict], only: Mapping[str, str]) -> list[dict]:
    """The settings that have these values, given as text.

    Raises:
        ValueError: a name that no setting has, or values that none has.
    """
    known = settings[0] if settings else {}
    if unknown := only.keys() - known.keys():
        raise ValueError(f"only must name {', '.join(known)}, got {', '.join(sorted(unknown))}")
    found = [s for s in settings if all(as_text(s[name]) == value for name, value in only.items())]
    if only and not found:
        values = "; ".join(f"{name} is {', '.join(dict.fromkeys(as_text(s[name]) for s in settings))}" for name in only)
        raise ValueError(f"only must have values of the grid, where {values}; got {pairs([*only], [*only.values()])}")
    return found


def _keep_chosen_bits(name: str, results: str | Path) -> None:
    """Of a complete experiment; where it cannot be told which rows are read, all bits stay in the rows."""
    try:
        keep_chosen_bits(name, results)
    except Exception as error:
        print(
            f"{name}: the rows keep which images were right, because an experiment is broken: {error}", file=sys.stderr
        )


def _make_folder(folder: Path) -> None:
    """Before hours of runs rather than after the first."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"results must be a folder that can be written, got {folder} ({error.strerror})") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"results must be a folder that can be written, got {folder}")


class _Runs:
    """The runs that are pending: until they are made, here or by another command, or have failed."""

    def __init__(
        self,
        study: Study,
        path: Path,
        command: str,
        pending: dict[str, Task],
        bar: Bar,
        planned: plan.Plan | None,
    ) -> None:
        self.study, self.rows, self.command = study, study.rows(path), command
        self.pending, self.bar, self.planned = pending, bar, planned
        self.failed: list[Task] = []
        self.suspects: set[str] = set()  # runs during which a worker process died

    def make(self, jobs: int, dask: str | None) -> list[Task]:
        while self.pending:
            for batch in self._batches():
                if dask:
                    outcomes = self._on_cluster(batch, dask)
                else:
                    outcomes = self._in_workers(batch, jobs) if jobs > 1 else self._here(batch)
                for run, row, error in outcomes:
                    self._finish(run, row, error)
            for run in self._made() & self.pending.keys():
                self._drop(run, "made by another command")
        return self.failed

    def _batches(self) -> Iterator[list[str]]:
        """All runs; then alone those that may have killed their worker, so that they take no other along."""
        yield [run for run in self.pending if run not in self.suspects]
        for run in self.suspects & self.pending.keys():
            yield [run]

    def _finish(self, run: str, row: dict | None, error: str) -> None:
        if row and row_key(row) != run:
            row, error = None, f"the worker has version {row['version']} of the experiment: update its bnbook"
        if row:
            self.rows.append(row)
            metric = self.study.measured
            self._drop(run, "diverged" if row["diverged"] else f"{metric} {row[metric]:.4g}" if metric else "made")
        else:
            self.failed.append(self.pending[run])
            self.bar.say(f"FAILED {self.study.name}, {_run_name(self.pending[run])}:\n{error.rstrip()}")
            self._drop(run, "failed")

    def _drop(self, run: str, what: str) -> None:
        self.bar.step(f"{_run_name(self.pending.pop(run))}: {what}")

    def _made(self) -> set[str]:
        return {row_key(row) for row in self.rows.read().rows}

    def _offered(self, batch: Iterable[str]) -> Iterator[str]:
        """The runs of a batch, each when a worker is free for it, without those that another command has made."""
        for run in batch:
            if run not in self._made():
                yield run

    def _said_of(self, run: str) -> tuple[str, dict]:
        """The command, and what a row says about its phase."""
        _, seed = self.pending[run]
        if not self.study.confirm:
            return self.command, {}
        if seed < plan.FIRST:
            return self.command, {"phase": CHOOSE}
        seeds = next(plan.seeds for plan in self.planned.confirmations if seed in plan.fresh)
        return self.command, {"phase": CONFIRM, "planned": seeds}

    # Where the runs are made

    def _here(self, batch: Sequence[str]) -> Iterator[Outcome]:
        for run in self._offered(batch):
            yield run, *work(self.study.name, *self.pending[run], *self._said_of(run))

    def _in_workers(self, batch: Sequence[str], jobs: int) -> Iterator[Outcome]:
        """Processes of joblib's: one that dies takes the others along, and all runs that they were at."""
        from joblib import Parallel, delayed, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        begun: set[str] = set()

        def calls() -> Iterator:
            for run in self._offered(batch):
                begun.add(run)
                yield delayed(_outcome)(run, self.study.name, *self.pending[run], *self._said_of(run))

        try:
            ends = {"initializer": _end_with, "initargs": (os.getpid(),)}
            with parallel_config("loky", inner_max_num_threads=1, **ends):
                pool = Parallel(jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=jobs)
                with _interrupts_held():
                    outcomes = pool(calls())  # starts the workers
                for outcome in outcomes:
                    begun.discard(outcome[0])
                    yield outcome
        except TerminatedWorkerError as error:
            for run in begun & self.suspects:  # it was alone
                yield run, None, str(error)
            self.suspects |= begun

    def _on_cluster(self, batch: Sequence[str], address: str) -> Iterator[Outcome]:
        """Workers of a Dask cluster; the scheduler gives the run of one that dies to another.

        Straight through Dask's client: joblib's Dask backend waits for ever for a run whose workers keep dying.
        """
        from distributed import Client, as_completed

        with Client(address, set_as_default=False) as client:
            runs = {
                client.submit(work, self.study.name, *self.pending[run], *self._said_of(run), pure=False): run
                for run in self._offered(batch)
            }
            for future in as_completed(runs, loop=client.loop):
                run = runs.pop(future)
                try:
                    row, error = future.result()
                except Exception as died:
                    row, error = None, f"{type(died).__name__}: {died}"
                yield run, row, error


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches this process afterwards; those that it starts meanwhile never: this one ends them."""
    resource_tracker.ensure_running()  # before the signal is held: where it starts, it lets the signal go again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# One run

_one_at_a_time = threading.Lock()  # a Dask worker may have threads, but a process has one stream of random numbers


def work(name: str, setting: dict, seed: int, command: str, phase: Mapping) -> tuple[dict | None, str]:
    """One run, in whatever process: its row, or None and the traceback."""
    try:
        with _one_at_a_time:
            return _row(find(name), setting, seed, command, phase), ""
    except Exception:
        return None, traceback.format_exc()


def _outcome(run: str, *arguments: object) -> Outcome:
    return run, *work(*arguments)


def _end_with(parent: int) -> None:
    """Let this process end with its parent, also one that has not begun to work: nobody would take its rows."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _row(study: Study, setting: dict, seed: int, command: str, phase: Mapping) -> dict:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # of this thread, whatever the environment says
    source = provenance.provenance(command)
    started = time.perf_counter()
    measured = dict(study.run(dict(setting), seed))
    seconds = time.perf_counter() - started
    if taken := measured.keys() & (FIELDS.keys() | {"phase", "planned"}) - {"diverged"}:
        raise ValueError(f"run() must leave {', '.join(sorted(taken))} to the engine")
    versions = {name: str(sys.modules[name].__version__) for name in FRAMEWORKS if name in sys.modules}
    row = {"experiment": study.name, "version": study.version, "setting": setting, "seed": seed, **phase}
    row |= _plain(measured)
    row["diverged"] = bool(row.get("diverged")) or row.get(study.measured, 0) is None
    row |= {"seconds": round(seconds, 2), "provenance": source | versions}
    if wrong := study.problem(row):
        raise ValueError(f"run() returned a row that {wrong}")
    return row


def _plain(measured: Mapping) -> dict:
    """Measurements as JSON holds them; which images were right as packed bits."""
    packed = {name: bits.pack_bits(value) for name, value in measured.items() if name == "correct"}
    return provenance.plain({**measured, **packed})


def _run_name(task: Task) -> str:
    setting, seed = task
    return pairs([*setting, "seed"], [*setting.values(), seed])
