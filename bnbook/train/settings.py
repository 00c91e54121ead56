"""What a run is: everything that its result depends on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial

import torch
from torch import nn

from ..models.torch_cnn import cnn
from ..models.torch_mlp import mlp, residual_mlp

MODELS: dict[str, Callable[[str], nn.Module]] = {
    "cnn": cnn,
    "mlp": mlp,
    "mlp_dropout": partial(mlp, dropout=0.5),
    "residual_mlp": residual_mlp,
}
"""What `model` accepts: each takes a norm and maps images (N, 1, 28, 28) to logits (N, 10)."""

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

WORDS = {
    "model": tuple(MODELS),
    "data": ("subset", "full"),
    "evaluate": ("val", "test"),
    "schedule": ("cosine", "constant"),
    "optimizer": ("sgd", "adam"),
    "precision": ("float32", "bfloat16"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "memory_format": tuple(MEMORY_FORMATS),
    "loader": ("device", "dataloader"),
    "capture": ("none", "graph"),
    "compile": ("none", "default", "reduce-overhead", "max-autotune-no-cudagraphs"),
}
"""What the settings accept that are words."""


def _setting(default: object, text: str):
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """The settings of a run; the help of `python -m bnbook.train` explains each of them.

    Raises:
        ValueError: a value that is not accepted, or two that do not go together; the message names them.
    """

    model: str = _setting("cnn", "the network")
    norm: str = _setting("batch", "its normalization: batch, none, layer, group, and what else the model knows")
    data: str = _setting("subset", "the 10,000 embedded training images, or the official 60,000")
    train_images: int | None = _setting(None, "train on the first so many images only")
    evaluate: str | None = _setting(
        None, "the images scored while training; default: val with --data subset, test with --data full. "
        "With --data full, val trains on the first 50,000 images and scores the other 10,000"
    )  # fmt: skip
    split_seed: int | None = _setting(
        None, "with --data full --evaluate val: draw by this seed which 10,000 of the 60,000 images are scored"
    )  # fmt: skip
    evaluations: int = _setting(1, "how often an epoch; after every update at most")
    epochs: int = _setting(5, "passes over the training images")
    batch_size: int = _setting(64, "images an update, over all processes; an incomplete last batch is left out")
    lr: float = _setting(0.1, "learning rate, at its highest")
    schedule: str = _setting("cosine", "falls to zero along half a cosine, update by update, or stays")
    optimizer: str = _setting("sgd", "with --momentum, or Adam")
    momentum: float = _setting(0.9, "of sgd")
    weight_decay: float = _setting(0.0, "of all parameters, γ and β too")
    precision: str = _setting("float32", "bfloat16: convolutions and matrix products in bfloat16, weights in float32")
    device: str = _setting("auto", "auto: cuda where there is one, else mps, else cpu")
    memory_format: str = _setting("contiguous", "the order of activations in memory: NCHW, or NHWC")
    loader: str = _setting("device", "keep all images on the device, or fetch every batch by a DataLoader")
    workers: int = _setting(4, "processes of the DataLoader")
    capture: str = _setting("none", "graph: record one update as a CUDA graph and replay it")
    compile: str = _setting("none", "by torch.compile in this mode; reduce-overhead makes CUDA graphs of its own")
    seed: int = _setting(0, "of the initial weights, the order of the images, and dropout")
    threads: int | None = _setting(None, "of PyTorch on the CPU; default: its own choice, and when resuming, as before")

    def __post_init__(self) -> None:
        for name, accepted in WORDS.items():
            value = getattr(self, name)
            if value not in accepted and not (name == "evaluate" and value is None):
                raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")
        for name, least in {"epochs": 1, "evaluations": 1, "batch_size": 1, "workers": 0, "seed": 0}.items():
            self._integer(name, least)
        for name, least in {"train_images": 1, "threads": 1, "split_seed": 0}.items():
            if getattr(self, name) is not None:
                self._integer(name, least)
        if self.split_seed is not None and (self.data, self.evaluate) != ("full", "val"):
            raise ValueError("split_seed needs data 'full' and evaluate 'val': there is nothing else to divide")
        for name in ("lr", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ValueError(f"{name} must be a number, got {value!r}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be positive and finite, got {self.lr!r}")
        if not (0 <= self.momentum < 1 and 0 <= self.weight_decay < math.inf):
            raise ValueError(
                f"momentum must be in [0, 1) and weight_decay at least 0, got {self.momentum} and {self.weight_decay}"
            )
        if self.seed >= 2**63:
            raise ValueError(f"seed must be less than 2**63, got {self.seed}")
        with torch.device("meta"):  # without memory or random numbers
            MODELS[self.model](self.norm)  # it knows its norms
        if self.capture == "graph" and self.loader != "device":
            raise ValueError("capture 'graph' needs loader 'device': a graph reads from memory of the card")
        if self.capture == "graph" and self.compile == "reduce-overhead":
            raise ValueError("compile 'reduce-overhead' makes CUDA graphs of its own: take capture 'none' with it")

    def _integer(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")

    def resolved(self, processes: int = 1) -> Settings:
        """The same with every choice made that was left open, as far as this machine can do what they say.

        Raises:
            ValueError: there is no such device here; the number of images, the batch and the norm do not fit.
        """
        device = find_device(self.device)
        most = 10_000 if self.data == "subset" else 60_000 if self.evaluate != "val" else 50_000
        images = self.train_images or most
        if images > most:
            why = "; the other 10,000 validate" if most == 50_000 else f" of data {self.data!r}"
            raise ValueError(f"train_images must be at most {most}{why}, got {images}")
        if not 1 <= self.batch_size <= images:
            raise ValueError(f"batch_size must be from 1 to the {images} training images, got {self.batch_size}")
        if self.batch_size % processes:
            raise ValueError(f"batch_size must be a multiple of the {processes} processes, got {self.batch_size}")
        if self.norm == "batch" and self.batch_size // processes < 2:
            raise ValueError(
                f"batch_size must be at least {2 * processes} with norm 'batch', because one image has no variance, "
                f"got {self.batch_size}: take a larger one, or norm 'none', 'layer' or 'group'"
            )
        if self.capture == "graph" and device != "cuda":
            raise ValueError(f"capture 'graph' needs device 'cuda', this is {device!r}: take capture 'none'")
        if processes > 1 and (self.capture, self.compile) != ("none", "none"):
            raise ValueError("capture and compile work in one process: start without torchrun, or leave them out")
        return replace(
            self,
            device=device,
            train_images=images,
            evaluate=self.evaluate or ("val" if self.data == "subset" else "test"),
            threads=self.threads or torch.get_num_threads(),
        )

    def network(self) -> nn.Module:
        """The network with the initial values of `seed`, on the CPU; the random numbers go on from there."""
        torch.manual_seed(self.seed)
        return MODELS[self.model](self.norm)

    def difference(self, other: Settings) -> str | None:
        """The first setting in which another run differs, "lr: 0.1 and 0.3"; None for equal ones."""
        for name in (f.name for f in fields(self)):
            if getattr(self, name) != getattr(other, name):
                return f"{name}: {getattr(self, name)!r} and {getattr(other, name)!r}"
        return None


def find_device(name: str) -> str:
    """The device that a name means here.

    Raises:
        ValueError: there is none.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in present.items() if there)
    if not present[name]:
        there = " or ".join(repr(device) for device in present if present[device])
        raise ValueError(f"device {name!r}: PyTorch {torch.__version__} finds none here; take {there}, or 'auto'")
    return name
