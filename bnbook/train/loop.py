"""The training loop: any device, any number of processes, and it can be killed at any moment."""

from __future__ import annotations

import gc
import math
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ..optim import cosine
from . import checkpoint as files
from . import processes as group
from .batches import LOADERS, load
from .checkpoint import CheckpointError, first_line
from .processes import Processes
from .progress import Progress
from .settings import MEMORY_FORMATS, Settings
from .update import Update, evaluate, optimizer

ASK_EVERY = 20  # updates between two questions to all processes whether a checkpoint is due; each costs a message
SAVE, STOP = 1, 2  # what may be wanted between two updates


@dataclass
class Result:
    """What a run has come to."""

    settings: Settings
    model: nn.Module  # in evaluation mode
    history: list[dict]
    """One row an evaluation: epoch, step, train_loss and train_accuracy since the row before, loss and accuracy of the
    images that `settings.evaluate` names, and seconds, those of the training up to here."""
    final: dict[str, float]  # test_loss and test_accuracy after the last update
    seconds: dict[str, float]
    """training: updates and the fetching of their batches; evaluation; checkpoints; preparation: compiling, warming up
    and recording."""
    memory: dict[str, int | str]  # the largest amount: bytes, and of what
    processes: int
    steps: int
    diverged: bool  # a loss was not finite, and the run ended with its epoch

    @property
    def epochs(self) -> float:
        """Passes over the training images; fewer than wanted where the run diverged."""
        return self.steps / (self.settings.train_images // self.settings.batch_size)


def train(
    settings: Settings | None = None,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Train a network, from its initial values or from a checkpoint, to the end.

    Args:
        settings: what to train, and how; the defaults are the recipe of the book.
        checkpoint: a folder, where the state of the run is kept after every epoch and every `checkpoint_every` seconds.
        resume: go on from the checkpoint; where there is none yet, begin. On a CPU the weights at the end are bit for
            bit those of a run that was never interrupted.
        progress: show a bar, or without tqdm or a terminal a line per evaluation.

    The random numbers of the caller, and the number of threads, stay as they are.

    Raises:
        ValueError: settings that are not possible here.
        CheckpointError: a checkpoint that is damaged, or of other settings, or that is there although `resume` is
            False; a folder that cannot be written.
        PreparationError: the update cannot be compiled or recorded.
        KeyboardInterrupt: at Ctrl-C, after the running update and with the checkpoint written; at the second, at once.
    """
    asked = settings or Settings()
    settings = asked.resolved(group.count())
    if checkpoint == "":
        raise ValueError("checkpoint must name a folder, got ''")
    folder = None if checkpoint is None else Path(checkpoint)
    if resume and folder is None:
        raise ValueError("resume needs the folder of the checkpoint: give --checkpoint DIR with it")
    if not checkpoint_every >= 0:
        raise ValueError(f"checkpoint_every must be at least 0 seconds, got {checkpoint_every}")
    processes = Processes(settings.device)
    with ExitStack() as stack:
        stack.enter_context(files.reserved(folder if processes.first else None))
        saved = _saved(folder, asked, resume) if folder else None
        if saved:
            settings = Settings(**saved["settings"])
        stack.enter_context(torch.random.fork_rng([processes.device] if processes.device.type == "cuda" else []))
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(settings.threads)
        run = Run(settings, processes, Progress(settings, progress and processes.first))
        if saved:
            run.restore(saved)
        if not processes.agree(run.step):
            raise CheckpointError(f"{folder} is not the same for all processes: name a folder that they share")
        return run.to_the_end(folder, checkpoint_every, stack.enter_context(_interrupts()))


class Run:
    """A run between two updates: all that a checkpoint holds, and what is made anew from the settings."""

    def __init__(self, settings: Settings, processes: Processes, progress: Progress) -> None:
        self.settings, self.processes, self.progress = settings, processes, progress
        device = processes.device
        self.synchronize = getattr(torch, device.type).synchronize
        if device.type == "cuda":
            gc.collect()  # or the memory of a run before this one is counted, too
            torch.cuda.reset_peak_memory_stats()
        self.model = settings.network().to(device, memory_format=MEMORY_FORMATS[settings.memory_format])
        if processes.rank:  # for dropout; the first process goes on as one process alone would
            torch.manual_seed(settings.seed + processes.rank)
        self.optimizer = optimizer(self.model, settings)
        self.loader = LOADERS[settings.loader](*load("train", settings), settings, processes)
        self.scored_on = tuple(tensor.to(device) for tensor in load(settings.evaluate, settings))
        self.update = Update(processes.parallel(self.model), self.optimizer, self.loader.fetch, settings, device)
        self.steps_per_epoch = len(self.loader)
        self.score_after = {
            round(self.steps_per_epoch * part / settings.evaluations) for part in range(1, settings.evaluations + 1)
        }
        self.epoch, self.batch = 0, 0  # the next batch of which epoch
        self.images = 0  # in the sums of loss and right answers
        self.taken_over = 0  # of them, those of all processes that the first one has in its sums after a restore
        self.history: list[dict] = []
        self.seconds = dict.fromkeys(("training", "evaluation", "checkpoints", "preparation"), 0.0)
        self.mark = time.perf_counter()

    @property
    def step(self) -> int:
        """The number of updates so far."""
        return self.epoch * self.steps_per_epoch + self.batch

    @property
    def diverged(self) -> bool:
        return bool(self.history) and not math.isfinite(self.history[-1]["train_loss"])

    def rate(self) -> float:
        """The learning rate of the next update."""
        if self.settings.schedule == "constant":
            return self.settings.lr
        return cosine(self.step, self.settings.epochs * self.steps_per_epoch, self.settings.lr)

    def to_the_end(self, folder: Path | None, every: float, interrupted: Callable[[], bool]) -> Result:
        """The loop over epochs and batches; a checkpoint after every epoch and every so many seconds."""
        batch_size = self.settings.batch_size
        self.lap("preparation")
        if self.update.needs_preparation:
            self.update.prepare(next(self.loader.epoch(0)))
            self.lap("preparation")
        self.model.train()
        due = time.monotonic() + every
        try:
            while self.epoch < self.settings.epochs and (self.batch or not self.diverged):  # an epoch is ended
                self.progress.begin(self.epoch, self.steps_per_epoch * batch_size, self.batch * batch_size)
                for batch in self.loader.epoch(self.epoch, self.batch):
                    self.update(batch, self.rate())
                    self.batch += 1
                    self.images += batch_size
                    self.progress.advance(batch_size, self.running)
                    if self.batch in self.score_after:
                        self.score()
                    wish = self.wish(interrupted(), time.monotonic() >= due)
                    if wish:
                        self.save(folder)
                        due = time.monotonic() + every
                    if wish == STOP:
                        raise KeyboardInterrupt
                self.epoch, self.batch = self.epoch + 1, 0
                self.progress.end()
                self.save(folder)
        finally:
            self.progress.end()
        return self.result()

    def running(self) -> tuple[float, float]:
        """Mean loss and accuracy of the images since the last evaluation, in the first process."""
        seen = self.taken_over + (self.images - self.taken_over) / self.processes.size
        return self.update.loss_sum.item() / seen, self.update.correct.item() / seen

    def score(self) -> None:
        """Add a row to the history, and begin the sums anew."""
        self.lap("training")
        total = [
            self.processes.total(value).item() / self.images for value in (self.update.loss_sum, self.update.correct)
        ]
        loss, accuracy = evaluate(self.model, *self.scored_on, self.settings)
        before = self.history[-1]["seconds"] if self.history else 0.0
        row = {
            "epoch": self.step / self.steps_per_epoch,
            "step": self.step,
            "train_loss": total[0],
            "train_accuracy": total[1],
            "loss": loss,
            "accuracy": accuracy,
            "seconds": self.seconds["training"],
        }
        self.history.append(row)
        self.progress.scored(row, self.images / (row["seconds"] - before))
        self.update.clear()
        self.images = self.taken_over = 0
        self.lap("evaluation")

    def wish(self, stop: bool, save: bool) -> int:
        """What any of the processes wants between two updates: STOP, SAVE or nothing (0)."""
        wish = STOP if stop else SAVE if save else 0
        if self.processes.size == 1:
            return wish
        return 0 if self.step % ASK_EVERY else self.processes.highest(wish)

    def lap(self, what: str) -> None:
        """The time since the last lap was spent on this."""
        self.synchronize()
        now = time.perf_counter()
        self.seconds[what] += now - self.mark
        self.mark = now

    def result(self) -> Result:
        """What the run has come to, scored on the test images."""
        self.lap("training")
        test = self.scored_on
        if self.settings.evaluate != "test":
            test = tuple(tensor.to(self.processes.device) for tensor in load("test", self.settings))
        loss, accuracy = evaluate(self.model, *test, self.settings)
        self.lap("evaluation")
        return Result(
            settings=self.settings,
            model=self.model.eval(),
            history=self.history,
            final={"test_loss": loss, "test_accuracy": accuracy},
            seconds=self.seconds,
            memory=_memory(self.processes.device),
            processes=self.processes.size,
            steps=self.step,
            diverged=self.diverged,
        )

    # Checkpoints

    def save(self, folder: Path | None) -> None:
        """Write the checkpoint, where one is wanted."""
        if folder is None:
            return
        self.lap("training")
        state = self.state()
        if self.processes.first:
            files.save(folder, state)
        self.processes.agree(self.step)  # so that what any of them does next finds the file
        self.lap("checkpoints")

    def state(self) -> dict:
        """The run in numbers, words and tensors."""
        device = self.processes.device
        random = {"cpu": torch.get_rng_state()}
        if device.type != "cpu":
            random["device"] = getattr(torch, device.type).get_rng_state()
        return {
            "settings": asdict(self.settings),
            "processes": self.processes.size,
            "epoch": self.epoch,
            "batch": self.batch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "random": {name: self.processes.gather(state) for name, state in random.items()},
            "sums": [self.processes.total(value).cpu() for value in (self.update.loss_sum, self.update.correct)],
            "images": self.images,
            "history": self.history,
            "seconds": self.seconds,
        }

    def restore(self, state: dict) -> None:
        """Go on where `state` was taken. In place, and before `Update.prepare`: a graph keeps the addresses."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state["optimizer"]})
            if self.processes.first:
                self.update.loss_sum.copy_(state["sums"][0])
                self.update.correct.copy_(state["sums"][1])
            self.epoch, self.batch = state["epoch"], state["batch"]
            self.images = self.taken_over = state["images"]
            self.history, self.seconds = state["history"], state["seconds"]
            for name, states in state["random"].items():
                module = torch if name == "cpu" else getattr(torch, self.processes.device.type)
                module.set_rng_state(states[self.processes.rank])
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit the {self.settings.model!r} of this version of bnbook "
                f"({first_line(error)}): go on with the version that wrote it, or begin anew in another folder"
            ) from None


def _saved(folder: Path, settings: Settings, resume: bool) -> dict | None:
    """The checkpoint to go on from; None to begin.

    Raises:
        CheckpointError: it is damaged, of other settings, or there although it is not to be resumed.
    """
    path = folder / files.NAME
    if not resume:
        if path.exists():
            raise CheckpointError(f"{path} exists: resume it (--resume), or name another folder")
        return None
    state = files.load(folder)
    if state is None:
        print(f"there is no {path} yet: the training begins", flush=True)
        return None
    try:
        before = Settings(**state["settings"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is of another version of bnbook ({first_line(error)}): name another folder"
        ) from None
    # The number of threads decides the order of sums: unless another one is asked for, it stays what it was.
    now = replace(settings, threads=settings.threads or before.threads).resolved(group.count())
    difference = before.difference(now)
    if difference is None and state["processes"] != group.count():
        difference = f"number of processes: {state['processes']} and {group.count()}"
    if difference:
        raise CheckpointError(
            f"{path} is of a run with other settings ({difference} now): give the same ones, or name another folder"
        )
    return state


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; an interrupt within an update would leave it half done. The second one interrupts.

    Nothing is changed where signals cannot be handled (another thread) or are not wanted (a job in the background).
    """
    pressed = threading.Event()
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is not signal.default_int_handler:
        yield pressed.is_set
        return

    def press(number: int, frame: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, handler)


def _memory(device: torch.device) -> dict[str, int | str]:
    if device.type == "cuda":
        return {"bytes": torch.cuda.max_memory_allocated(device), "of": "tensors on the GPU"}
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "of": "the process, all its runs so far",
    }
