"""The order in which the images are seen, and the two ways in which they reach the device."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from .. import data
from .processes import Processes
from .settings import Settings


def load(split: str, settings: Settings) -> tuple[Tensor, Tensor]:
    """Standardized images (N, 1, 28, 28) in float32 and labels (N,) of a split, on the CPU."""
    drawn = settings.split_seed is not None and split != "test"
    images, labels = data.load("train" if drawn else split, subset=settings.data == "subset")
    if drawn:
        shuffled = np.random.default_rng([settings.split_seed, 2]).permutation(len(images))
        cut = len(images) * 5 // 6  # 50,000, as in the division that is not drawn
        part = shuffled[:cut] if split == "train" else shuffled[cut:]
        images, labels = images[part], labels[part]
    count = settings.train_images if split == "train" else None
    return torch.from_numpy(data.to_input(images[:count])), torch.from_numpy(labels[:count])


def order(images: int, batch_size: int, seed: int, epoch: int) -> Tensor:
    """The batches of one epoch, (number of batches, batch_size) indices: a permutation that seed and epoch determine.

    What does not fill a batch is left out; every epoch it is other images.
    """
    shuffled = np.random.default_rng([seed, 1, epoch]).permutation(images)
    return torch.from_numpy(shuffled[: images - images % batch_size].reshape(-1, batch_size))


class OnDevice:
    """All images on the device; a batch is a tensor of indices."""

    def __init__(self, images: Tensor, labels: Tensor, settings: Settings, processes: Processes) -> None:
        self.settings, self.processes = settings, processes
        self.images, self.labels = images.to(processes.device), labels.to(processes.device)

    def __len__(self) -> int:
        return len(self.images) // self.settings.batch_size

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Tensor]:
        """The batches of an epoch from number `first` on; of each, what this process is to do."""
        rows = order(len(self.images), self.settings.batch_size, self.settings.seed, epoch)
        return iter(_share(rows[first:], self.processes).to(self.processes.device))

    def fetch(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The images and labels of a batch, on the device."""
        return self.images[batch], self.labels[batch]


class ByDataLoader:
    """The images in the CPU's memory, brought by a DataLoader, as tutorials have it; a batch is a pair of tensors."""

    def __init__(self, images: Tensor, labels: Tensor, settings: Settings, processes: Processes) -> None:
        self.settings, self.processes = settings, processes
        self.dataset = TensorDataset(images, labels)

    def __len__(self) -> int:
        return len(self.dataset) // self.settings.batch_size

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from number `first` on; of each, what this process is to do."""
        rows = order(len(self.dataset), self.settings.batch_size, self.settings.seed, epoch)
        share = _share(rows[first:], self.processes)
        loader = DataLoader(
            self.dataset,
            batch_size=share.shape[1],
            sampler=share.flatten().tolist(),
            num_workers=self.settings.workers,
            pin_memory=self.processes.device.type == "cuda",
            generator=torch.Generator(),  # or it draws a number from the stream that dropout uses
            worker_init_fn=_leave_interrupts_to_the_parent,
        )
        return iter(loader)

    def fetch(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The images and labels of a batch, on the device."""
        images, labels = batch
        device = self.processes.device
        return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


LOADERS = {"device": OnDevice, "dataloader": ByDataLoader}


def _share(rows: Tensor, processes: Processes) -> Tensor:
    """Of every batch (row) the part of this process: the parts are equal and follow one another."""
    return rows.unflatten(1, (processes.size, rows.shape[1] // processes.size))[:, processes.rank]


def _leave_interrupts_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
