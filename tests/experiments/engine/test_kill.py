"""What becomes of rows when commands, workers and cluster nodes are killed, and when two commands run at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import dask
import psutil
import pytest
from distributed import LocalCluster

from bnbook import experiments
from bnbook.experiments import claims
from bnbook.experiments.engine.rows import Rows

pytestmark = pytest.mark.long(seconds=80)

EXAMPLES = Path(__file__).parent / "example_experiments"
KILLS = 20


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path) -> Path:
    """The example is found here and in all processes; the file that its runs leave a trace in."""
    monkeypatch.setattr(claims, "__path__", [*claims.__path__, str(EXAMPLES)])
    monkeypatch.setenv("BNBOOK_EXPERIMENTS", str(EXAMPLES))
    monkeypatch.setenv("TINY_TRACE", str(tmp_path / "trace"))
    (tmp_path / "trace").touch()
    return tmp_path / "trace"


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[dict]:
    """The rows of 24 seeds as one undisturbed process makes them."""
    folder = tmp_path_factory.mktemp("expected")
    subprocess.run(
        command(folder, 24), check=True, capture_output=True, env=os.environ | {"BNBOOK_EXPERIMENTS": str(EXAMPLES)}
    )
    return Rows(folder / "tiny.jsonl").read().rows


def command(folder: Path, seeds: int, *more: object) -> list[str]:
    words = ["run", "tiny", "--results", folder, "--seeds", seeds, *more]
    return [sys.executable, "-m", "bnbook.experiments", *map(str, words)]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start the command; what is still running at the end of the test is ended."""
    started = []

    def start(folder: Path, seeds: int, *more: object, **environment: str) -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                command(folder, seeds, *more),
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too: they hold the other ends of its pipes
        process.communicate()


def run_of(row: dict) -> str:
    return f"{row['setting']['norm']} {row['setting']['lr']} {row['seed']}"


def measured(rows: list[dict]) -> dict[str, tuple]:
    return {run_of(row): (row["val_accuracy"], row["test_accuracy"]) for row in rows}


def traced(trace: Path, word: str) -> list[tuple[str, int]]:
    """(run, process) of the lines of the trace that begin with a word; not of one that is being written."""
    lines = trace.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    return [
        (line.split(" ", 1)[1].rpartition(" ")[0], int(line.split()[-1])) for line in lines if line.startswith(word)
    ]


def at_work(trace: Path) -> dict[str, int]:
    """The runs that have begun and not ended, and the process of each."""
    ended = Counter(run for run, _ in traced(trace, "end"))
    begun = Counter(run for run, _ in traced(trace, "begin"))
    return {run: process for run, process in traced(trace, "begin") if begun[run] > ended[run]}


def until(condition: Callable[[], object], seconds: float = 600) -> object:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)
    return found


def ended(process: int | psutil.Process) -> bool:
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def complete(folder: Path, expected: list[dict], seeds: int) -> None:
    """The file holds the rows of the grid, each once and each as an undisturbed process makes it."""
    found = Rows(folder / "tiny.jsonl", lambda row: (run_of(row), row["version"])).read()
    assert not found.damage and not found.truncated
    assert len(found.rows) == 6 * seeds
    assert measured(found.rows) == measured([row for row in expected if row["seed"] < seeds])


def test_killed_at_any_moment_nothing_finished_is_lost_or_repeated(tmp_path, tiny, start, expected):
    """Twenty SIGKILLs, at random moments and at moments when a row is being written."""
    path, seeds, rng = tmp_path / "tiny.jsonl", 24, random.Random(0)
    workers: set[int] = set()
    for kill in range(KILLS):
        before = path.read_bytes() if path.exists() else b""
        finished = {run_of(row) for row in Rows(path).read().rows}
        begun = len(traced(tiny, "begin"))
        process = start(tmp_path, seeds, "--jobs", 2, TINY_SECONDS="0.35")
        if kill % 2:
            until(lambda before=before: path.exists() and path.stat().st_size != len(before))
            time.sleep(rng.choice((0, 0.0005, 0.001, 0.002, 0.4)))
        else:
            time.sleep(rng.uniform(0.3, 1.6))
        assert process.poll() is None, process.communicate()
        process.kill()
        process.wait()
        lines = path.read_bytes() if path.exists() else b""
        assert lines.startswith(before[: before.rfind(b"\n") + 1])
        now = traced(tiny, "begin")[begun:]
        assert finished.isdisjoint(run for run, _ in now)
        workers |= {worker for _, worker in now}
    assert 0 < len(Rows(path).read().rows) < 6 * seeds  # every kill hit a command at work
    until(lambda: all(map(ended, workers)), 30)
    process = start(tmp_path, seeds, "--jobs", 2)
    assert process.wait(600) == 0
    complete(tmp_path, expected, seeds)


def test_workers_end_with_their_command_also_those_without_a_run(tmp_path, tiny, start):
    """Nobody works, or waits, for nobody."""
    process = start(tmp_path, 1, "--jobs", 2, "--only", "norm=batch", "lr=0.1", TINY_SECONDS="600")
    until(lambda: at_work(tiny))
    family = psutil.Process(process.pid).children(recursive=True)
    assert sum("loky.backend.popen" in " ".join(child.cmdline()) for child in family) == 2
    process.kill()
    until(lambda: all(map(ended, family)), 30)


def test_two_commands_at_once_keep_one_row_of_a_run(tmp_path, tiny, start, expected):
    commands = [start(tmp_path, 4, "--jobs", jobs, TINY_SECONDS="0.1") for jobs in (1, 2)]
    said = [process.communicate(timeout=600) for process in commands]
    assert [process.returncode for process in commands] == [0, 0], said
    assert all("24 rows, 0 missing, 0 runs failed" in out for out, _ in said)
    complete(tmp_path, expected, 4)
    begun = traced(tiny, "begin")
    assert len(begun) < 48 and len({worker for _, worker in begun}) == 3  # what one has made, the other leaves out


def test_a_command_goes_on_when_another_is_killed(tmp_path, tiny, start, expected):
    first = start(tmp_path, 1, TINY_SECONDS="600")
    until(lambda: at_work(tiny))
    second = start(tmp_path, 1)
    until(lambda: (tmp_path / "tiny.jsonl").exists())
    first.kill()
    assert second.wait(600) == 0
    complete(tmp_path, expected, 1)


def test_a_worker_that_is_killed_takes_no_row_along(tmp_path, tiny, start, expected):
    process = start(tmp_path, 3, "--jobs", 2, TINY_SECONDS="0.2")
    until(lambda: len(traced(tiny, "end")) >= 4)
    os.kill(until(lambda: next(iter(at_work(tiny).values()), None)), signal.SIGKILL)
    assert process.wait(600) == 0, process.communicate()
    complete(tmp_path, expected, 3)


def test_a_run_that_kills_its_worker_fails_alone(tmp_path, start, expected):
    process = start(tmp_path, 2, "--jobs", 2, TINY_DIES="batch 0.1 0", TINY_SECONDS="0.1")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1 and "11 rows, 1 missing, 1 runs failed" in out
    assert "FAILED tiny, norm batch, lr 0.1, seed 0:" in err and "FAILED" not in err.replace(
        "FAILED tiny, norm batch", ""
    )
    assert start(tmp_path, 2, "--jobs", 2).wait(600) == 0
    complete(tmp_path, expected, 2)


@pytest.mark.parametrize("jobs, to_all", [(1, False), (2, False), (2, True)])
def test_ctrl_c_ends_at_once_and_says_how_to_go_on(tmp_path, tiny, start, expected, jobs, to_all):
    """The terminal sends the signal to the workers as well, `kill -INT` does not."""
    process = start(tmp_path, 2, "--jobs", jobs, TINY_SECONDS="0.3")
    until(lambda: (tmp_path / "tiny.jsonl").exists() and at_work(tiny))
    finished = Rows(tmp_path / "tiny.jsonl").read().rows
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "stopped; the same command goes on where it stopped" in err and "Traceback" not in err
    assert Rows(tmp_path / "tiny.jsonl").read().rows[: len(finished)] == finished
    until(lambda: all(ended(worker) for _, worker in traced(tiny, "begin")))
    assert start(tmp_path, 2).wait(600) == 0
    complete(tmp_path, expected, 2)


def test_ctrl_c_never_reaches_a_worker(tmp_path, tiny, start, expected):
    process = start(tmp_path, 2, "--jobs", 2, TINY_SECONDS="0.3")
    os.kill(until(lambda: next(iter(at_work(tiny).values()), None)), signal.SIGINT)
    assert process.wait(600) == 0, process.communicate()
    complete(tmp_path, expected, 2)


def test_on_a_cluster_a_killed_worker_takes_no_row_along(tmp_path, tiny, start, expected, monkeypatch):
    """Two worker processes, each of two threads, which share a stream of random numbers: runs take turns in them."""
    monkeypatch.setenv("TINY_SECONDS", "0.2")
    with LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        process = start(tmp_path, 4, "--dask", cluster.scheduler_address)
        until(lambda: len(traced(tiny, "end")) >= 4)
        victim = until(lambda: next(iter(at_work(tiny).values()), None))
        assert victim in [nanny.pid for nanny in cluster.workers.values()]
        os.kill(victim, signal.SIGKILL)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0 and "24 rows, 0 missing, 0 runs failed" in out, err
    complete(tmp_path, expected, 4)
    assert len({worker for _, worker in traced(tiny, "begin")}) >= 2
    assert experiments.load("tiny", tmp_path)[0]["threads"] == "1"


def test_on_a_cluster_a_run_that_kills_its_workers_fails_alone(tmp_path, start, expected, monkeypatch):
    monkeypatch.setenv("TINY_DIES", "batch 0.1 0")
    # A worker holds no run but the one it works on: those that wait on a dying worker would be suspected with it.
    one_by_one = {"distributed.scheduler.allowed-failures": 1, "distributed.scheduler.worker-saturation": 1.0}
    with (
        dask.config.set(one_by_one),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
    ):
        process = start(tmp_path, 1, "--dask", cluster.scheduler_address)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 1 and "5 rows, 1 missing, 1 runs failed" in out
    assert "KilledWorker" in err
    assert start(tmp_path, 1, TINY_DIES="").wait(600) == 0
    complete(tmp_path, expected, 1)
