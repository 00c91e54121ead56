"""Making the runs of an experiment's grid, in this process, in several, or on a cluster.

One process writes: workers return their rows to the command, which appends each to the results file as it comes. So a
command that is killed at any moment leaves whole rows, and the same command goes on where it stopped. Of two commands
at once each takes runs that the other has not taken.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ... import provenance
from . import rows as files
from .experiment import FIELDS, RESULTS, Task, contents, duration, file, find, key, name_of, problem, row_key, rows_of

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)

Outcome = tuple[str, dict | None, str]  # key of the run; its row, or None and why


def run(
    name: str,
    *,
    seeds: Sequence[int] | None = None,
    jobs: int = 1,
    quick: bool = False,
    results: str | Path = RESULTS,
    dask: str | None = None,
    command: str = "",
    progress: bool = True,
) -> list[Task]:
    """Make the rows that an experiment's results file lacks; what goes wrong is told on the standard error.

    Args:
        seeds: those of every setting; as many as the experiment plans if left out.
        jobs: number of worker processes; with 1 the runs are made in this process.
        quick: the small grid, into a file of its own.
        dask: address of a Dask scheduler whose workers make the runs instead.
        command: kept with the rows.
        progress: whether to show a bar over the runs, with the time left.

    Returns:
        the runs that raised: they have no row.

    Raises:
        ValueError: an unknown experiment, arguments out of range, or a folder that cannot be written.
    """
    module, path = find(name), file(name, results, quick)
    if (source := rows_of(module)) != name:
        raise ValueError(f"{name} has no runs of its own, it reads those of {source}: run {source}")
    seeds = range(module.SEEDS) if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
        raise ValueError(f"seeds must be at least one, different and not negative, got {list(seeds)}")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    held = contents(module, path, seeds, quick)
    for line in held.warnings(module, path):
        print(line, file=sys.stderr)
    if held.missing:
        _make_folder(path.parent)
    pending = {key(module.VERSION, *task): task for task in held.missing}
    with _Claims(path) as claims, _Bar(name, len(pending), progress) as bar:
        return _Runs(name, path, command, pending, claims, bar).make(jobs, dask)


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
        self, name: str, path: Path, command: str, pending: dict[str, Task], claims: _Claims, bar: _Bar
    ) -> None:
        self.name, self.path, self.command, self.module = name, path, command, find(name)
        self.pending, self.claims, self.bar = pending, claims, bar
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
            self._drop_made_elsewhere()
            if self.pending and not any(self.claims.take(run) for run in self.pending):
                # Other commands are at what is left. When one of them is through with it, or killed, look again.
                self.claims.wait(next(iter(self.pending)))
                self._drop_made_elsewhere()
        return self.failed

    def _batches(self) -> Iterator[list[str]]:
        """All runs; then alone those that may have killed their worker, so that they take no other along."""
        yield [run for run in self.pending if run not in self.suspects]
        for run in self.suspects & self.pending.keys():
            yield [run]

    def _finish(self, run: str, row: dict | None, error: str) -> None:
        task = self.pending[run]
        if row and row_key(row) != run:
            row, error = None, f"the worker has version {row['version']} of the experiment: update its bnbook"
        if row:
            files.append(self.path, row, self._key)
            metric = self.module.METRIC
            result = "diverged" if row["diverged"] else f"{metric} {row[metric]:.4g}"
            self._drop(run, f"{_words(task)}: {result}")
        else:
            self.failed.append(task)
            self.bar.say(f"FAILED {self.name}, {_words(task)}:\n{error.rstrip()}")
            self._drop(run, f"{_words(task)}: failed")

    def _drop(self, run: str, text: str) -> None:
        self.bar.step(text)
        self.claims.release(run)
        del self.pending[run]

    def _made(self) -> set[str]:
        return {self._key(row) for row in files.read(self.path).rows}

    def _key(self, row: dict) -> str | None:
        """What an intact row is known by; a damaged one stands for no run."""
        return None if problem(row, self.module) else row_key(row)

    def _drop_made_elsewhere(self) -> None:
        for run in self._made() & self.pending.keys():
            self._drop(run, f"{_words(self.pending[run])}: made by another command")

    def _offered(self, batch: Iterable[str]) -> Iterator[str]:
        """The runs of a batch, each when a worker is free for it, without those that other commands have taken."""
        for run in batch:
            if self.claims.take(run) and run not in self._made():
                yield run

    # Where the runs are made

    def _here(self, batch: Sequence[str]) -> Iterator[Outcome]:
        for run in self._offered(batch):
            yield run, *work(self.name, *self.pending[run], self.command)

    def _in_workers(self, batch: Sequence[str], jobs: int) -> Iterator[Outcome]:
        """Processes of joblib's: one that dies takes the others along, and all runs that they were at."""
        from joblib import Parallel, delayed, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        begun: set[str] = set()

        def calls() -> Iterator:
            for run in self._offered(batch):
                begun.add(run)
                yield delayed(_work_for)(os.getpid(), run, self.name, *self.pending[run], self.command)

        try:
            with parallel_config("loky", inner_max_num_threads=1):
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
                client.submit(work, self.name, *self.pending[run], self.command, pure=False): run
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
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# One run

_one_at_a_time = threading.Lock()  # a Dask worker may have threads, but a process has one stream of random numbers


def work(name: str, setting: dict, seed: int, command: str) -> tuple[dict | None, str]:
    """One run, in whatever process: its row, or None and the traceback."""
    try:
        with _one_at_a_time:
            return _row(find(name), setting, seed, command), ""
    except Exception:
        return None, traceback.format_exc()


def _work_for(parent: int, run: str, *arguments: object) -> Outcome:
    """`work` in a process that ends with its parent: nobody would take its row."""
    if not any(thread.name == "parent" for thread in threading.enumerate()):
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    return run, *work(*arguments)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _row(module: ModuleType, setting: dict, seed: int, command: str) -> dict:
    versions = {}
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # of this thread, whatever the environment says
        versions["torch"] = str(torch.__version__)
    source = provenance.provenance(command, **versions)
    started = time.perf_counter()
    measured = dict(module.run(dict(setting), seed))
    seconds = time.perf_counter() - started
    if taken := measured.keys() & FIELDS.keys() - {"diverged"}:
        raise ValueError(f"run() must leave {', '.join(sorted(taken))} to the engine")
    row = {"experiment": name_of(module), "version": module.VERSION, "setting": setting, "seed": seed}
    row |= _plain(measured)
    row["diverged"] = bool(row.get("diverged")) or row.get(module.METRIC, 0) is None
    row |= {"seconds": round(seconds, 2), "provenance": source}
    if wrong := problem(row, module):
        raise ValueError(f"run() returned a row that {wrong}")
    return row


def _plain(measured: Mapping) -> dict:
    """Measurements as JSON holds them; which images were right as packed bits."""
    packed = {name: files.pack_bits(value) for name, value in measured.items() if name == "correct"}
    return provenance.plain({**measured, **packed})


def _words(task: Task) -> str:
    setting, seed = task
    return ", ".join([*(f"{name} {value}" for name, value in setting.items()), f"seed {seed}"])


# Between commands, and to the reader


class _Claims:
    """Which runs of a results file a command is at: locks that its end releases, however it ends.

    A lock is one byte of a file in the system's folder for temporary files. They hold on one machine; a command on
    another may make the same run, but `append` keeps one row.
    """

    def __init__(self, path: Path) -> None:
        place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
        self._path = Path(tempfile.gettempdir()) / f"bnbook-{os.getuid()}-{place}.claims"
        self._file = open(self._path, "wb")

    def take(self, run: str) -> bool:
        """Claim a run; False if another command has it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._byte(run))
        except BlockingIOError:
            return False
        return True

    def wait(self, run: str) -> None:
        """Wait until no other command has the run, and claim it."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._byte(run))

    def release(self, run: str) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._byte(run))

    @staticmethod
    def _byte(run: str) -> int:
        return int.from_bytes(hashlib.sha256(run.encode()).digest()[:6])

    def __enter__(self) -> _Claims:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the whole file: nobody else has a claim
            self._path.unlink(missing_ok=True)
        except BlockingIOError:
            pass
        self._file.close()


class _Bar:
    """A progress bar over runs with the time left; without tqdm, a line a run."""

    def __init__(self, name: str, total: int, wanted: bool) -> None:
        self.total, self.wanted, self.done, self.started = total, wanted, 0, time.monotonic()
        self.bar = None
        if wanted and total:
            try:
                from tqdm import tqdm
            except ModuleNotFoundError:
                return
            self.bar = tqdm(total=total, desc=name, unit="run", smoothing=0)

    def step(self, text: str) -> None:
        """One run is over."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update()
        elif self.wanted:
            left = (time.monotonic() - self.started) / self.done * (self.total - self.done)
            self.say(f"{self.done}/{self.total} {text}; {duration(left)} left")

    def say(self, text: str) -> None:
        """Show text without spoiling the bar."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()
