"""One update of the weights: operation by operation, compiled, or recorded as a CUDA graph and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .checkpoint import first_line
from .settings import Settings

WARM_UP = 3  # updates before a graph is recorded: by then libraries are loaded and choices made

Batch = "Tensor | tuple[Tensor, Tensor]"  # a string: the API page is built where Tensor is a stand-in


def optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer of the settings; its rate is a tensor where a graph has to read it."""
    captured = settings.capture == "graph"
    lr = torch.tensor(settings.lr, device=settings.device) if captured else settings.lr
    # Fused, all parameters take one kernel; and a fused SGD reads a rate that is a tensor without waiting for it.
    shared = {"lr": lr, "weight_decay": settings.weight_decay, "fused": settings.device in ("cpu", "cuda")}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=settings.momentum, **shared)
    return torch.optim.Adam(model.parameters(), capturable=captured, **shared)


class PreparationError(RuntimeError):
    """The update cannot be compiled or recorded here; the message says why, and what to do."""


class Update:
    """Forward, loss, backward, optimizer: `update(batch, lr)`.

    On a GPU it returns before the work is done. The sums since the last `clear` stay on the device, so that reading
    them is left to those who can wait.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        fetch: Callable[[Batch], tuple[Tensor, Tensor]],
        settings: Settings,
        device: torch.device,
    ) -> None:
        self.model, self.optimizer, self.fetch, self.settings = model, optimizer, fetch, settings
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.loss_sum = torch.zeros((), dtype=exact, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Tensor | None = None  # where the graph reads the indices of its images
        self._forward = self._scores
        if settings.compile != "none":
            torch.compiler.reset()  # another model of this process may have used up its limit of compilations
            self._forward = torch.compile(self._scores, mode=settings.compile)

    def __call__(self, batch: Batch, lr: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        if self._graph is None:
            self._run(batch)
        else:
            self._batch.copy_(batch)
            self._graph.replay()

    def clear(self) -> None:
        """Begin the sums anew."""
        self.loss_sum.zero_()
        self.correct.zero_()

    def _scores(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, and how many of its images are classified right."""
        with autocast(self.settings):
            logits = self.model(x)
        return cross_entropy(logits.float(), y), (logits.argmax(1) == y).sum()

    def _run(self, batch: Batch) -> None:
        x, y = self.fetch(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss, correct = self._forward(x, y)
        loss.backward()
        self.optimizer.step()
        self.loss_sum.add_(loss.detach(), alpha=len(y))
        self.correct.add_(correct)

    @property
    def needs_preparation(self) -> bool:
        """Whether the first updates take longer than those that follow, or are of another kind."""
        return self.settings.device != "cpu" or self.settings.compile != "none"

    def prepare(self, batch: Batch) -> None:
        """Compile, warm up and record with this batch; afterwards everything is as if nothing had been run.

        Raises:
            PreparationError: the step cannot be compiled or recorded here.
        """
        self.model.train()
        try:
            with unchanged(self):
                if self.settings.capture == "graph":
                    self._capture(batch)
                else:
                    for _ in range(WARM_UP):
                        self._run(batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            how = {name: getattr(self.settings, name) for name in ("compile", "capture")}
            plain = set(how.values()) == {"none"}
            raise PreparationError(
                f"the update could not be prepared with {', '.join(f'{name} {how[name]!r}' for name in how)} "
                f"({type(error).__name__}: {first_line(error)}); "
                + ("another device may do it" if plain else "both 'none' leaves less to fail")
            ) from error

    def _capture(self, batch: Tensor) -> None:
        """Record one update: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture."""
        self._batch = batch.clone()
        stream = torch.cuda.Stream()  # work of the default stream cannot be recorded
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # Adam, about the updates of the warm-up
            for _ in range(WARM_UP):
                self._run(self._batch)
        torch.cuda.current_stream().wait_stream(stream)
        # Without gradients at its beginning the graph owns those that it makes, and overwrites them at every replay.
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._run(self._batch)
        self._graph = graph


@contextmanager
def unchanged(update: Update) -> Iterator[None]:
    """Put back the weights, statistics, optimizer, sums and random numbers after the block.

    In place: a graph that was recorded in the block reads and writes this memory, and no other. What the optimizer has
    made in the block is set to zero, which for SGD (without dampening) and Adam is where it begins.
    """
    optimizer = update.optimizer
    tensors = [*update.model.parameters(), *update.model.buffers(), update.loss_sum, update.correct]
    before = [tensor.detach().clone() for tensor in tensors]
    state = {
        (parameter, name): value.clone()
        for parameter, values in optimizer.state.items()
        for name, value in values.items()
    }
    cards = [update.loss_sum.device] if update.loss_sum.is_cuda else []
    with torch.random.fork_rng(devices=cards):
        yield
    with torch.no_grad():
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                value.copy_(state[parameter, name]) if (parameter, name) in state else value.zero_()
    if update._graph is None:
        optimizer.zero_grad(set_to_none=True)  # those of a graph are its own, and are overwritten


def autocast(settings: Settings):
    """The context in which the network computes: matrix products in bfloat16, or nothing special.

    The casts of the weights are not kept from one layer to the next: none is used twice, and a graph may not keep them.
    """
    if settings.precision == "float32":
        return nullcontext()
    return torch.autocast(settings.device, torch.bfloat16, cache_enabled=False)


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor, settings: Settings) -> tuple[float, float]:
    """Mean loss and accuracy in evaluation mode; the mode of every layer is put back."""
    batch_size = 100 if settings.device == "cpu" else 2_000  # larger ones leave the cache of a CPU and take longer
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    with autocast(settings):
        logits = torch.cat([model(part).float() for part in images.split(batch_size)])
    for layer, training in modes:
        layer.training = training
    return cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).sum().item() / len(labels)
