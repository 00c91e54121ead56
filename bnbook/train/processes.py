"""The processes that torchrun started, or the one there is."""

from __future__ import annotations

import atexit
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def count() -> int:
    """How many processes train together, by torchrun's WORLD_SIZE."""
    return _number("WORLD_SIZE", 1, lowest=1)


def rank() -> int:
    """Which of them this is, by torchrun's RANK."""
    return _number("RANK", 0, lowest=0)


def _number(name: str, default: int, lowest: int) -> int:
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and int(text) >= lowest):
        raise ValueError(
            f"the environment variable {name} must be a whole number of at least {lowest}, got {text!r}: "
            "torchrun sets it; without torchrun it must not be set"
        )
    return int(text)


class Processes:
    """All processes of a run. Its methods are called by all of them at the same place; with one they do nothing.

    The processes stay joined until they end, so that several runs can follow one another.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.size = rank(), count()
        self.first = self.rank == 0  # the one that shows and writes
        self.device = torch.device(device)
        if device == "cuda":
            card, cards = _number("LOCAL_RANK", 0, lowest=0), torch.cuda.device_count()
            if card >= cards:
                raise ValueError(f"device 'cuda' has {cards} cards here: at most so many processes, one a card")
            self.device = torch.device("cuda", card)
            torch.cuda.set_device(self.device)
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over the processes, and the first process's statistics in all."""
        if self.size == 1:
            return model
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[self.device.index] if self.device.type == "cuda" else None
        )

    def highest(self, value: int) -> int:
        """The highest value of all processes."""
        if self.size == 1:
            return value
        values = torch.tensor(value, device=self.device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return int(values)

    def agree(self, value: int) -> bool:
        """Whether all processes have the same value; none goes on before all have come here."""
        return self.highest(value) == -self.highest(-value)

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """The tensors of all processes, on the CPU."""
        if self.size == 1:
            return [values.cpu()]
        values = values.to(self.device)
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values)
        return [tensor.cpu() for tensor in gathered]
