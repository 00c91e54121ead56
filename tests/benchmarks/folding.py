"""What folding costs and gains: `bnbook.interop.fold` beside `torch.fx.experimental.optimization.fuse`.

    python -m tests.benchmarks.folding [--rounds 15]

One thread, float32. Every round times all candidates once, in random order, and divides by the time of the same round:
making the folded model by the time that `fuse` takes, calling it by the time that the model takes as it was. Where
`fuse` leaves layers or is wrong, the table says so. The numbers belong to the machine they were taken on.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from bnbook.interop import fold
from bnbook.models import torch_cnn, torch_conv
from bnbook.probes.untouched import tensors
from tests.interop.architectures import ARCHITECTURES

SIZES = {  # model, side of the images
    "the book's network": (torch_cnn.cnn, 28),
    "ResNet-20": (lambda: torch_conv.resnet(depth=20), 28),
    **{name: (make, 14) for name, make in ARCHITECTURES.items() if name not in ("the book's network", "ResNet")},
}
AT_LEAST = 0.02  # seconds of calls that one timing averages over


def seconds(call: Callable) -> float:
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < AT_LEAST or calls == 0:
        call()
        calls += 1
    return elapsed / calls


def ratios(candidates: dict[str, Callable], base: str, rounds: int) -> dict[str, float]:
    """The median over the rounds of each time over that of `base`."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()
    for _ in range(rounds):
        for name in random.sample(list(candidates), len(candidates)):
            times[name].append(seconds(candidates[name]))
    return {name: float(np.median(np.divide(t, times[base]))) for name, t in times.items()}


def moved(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """With other statistics than at the start, in evaluation."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    model(x)
    return model.eval().requires_grad_(False)


def verdict(made: nn.Module, model: nn.Module, x: torch.Tensor) -> str:
    for ours, whole in zip(tensors(made(x)), tensors(model(x)), strict=True):
        if (ours - whole).abs().max() > 1e-3 * whole.abs().max():
            return "WRONG"
    return str(sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in made.modules()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}, one thread, median of {rounds} interleaved rounds\n")
    print(f"{'':23}{'layers left':>21}{'making it / fuse':>27}{'calling it / as it was, batch 1 and 64':>43}")
    print(f"{'':23}{'fold':>14}{'fuse':>7}{'without':>14}{'with example':>13}{'fold':>29}{'fuse':>14}")
    for name, (make, side) in SIZES.items():
        torch.manual_seed(0)
        x = torch.randn(64, 1, side, side)
        model = moved(make(), x)
        ours, theirs = fold(model, x)[0], fuse(model)
        left = verdict(ours, model, x), verdict(theirs, model, x)
        making = {"fuse": lambda m=model: fuse(m), "with": lambda m=model, x=x: fold(m, x[:2])}
        try:
            fold(model)
            making["without"] = lambda m=model: fold(m)
        except ValueError:  # a fully connected layer: an example is needed
            pass
        made = ratios(making, "fuse", rounds)
        called = []
        for size in (1, 64):
            part = x[:size]
            calls = {"as it was": model, "fold": ours, "fuse": theirs}
            called.append(ratios({k: lambda m=m, p=part: m(p) for k, m in calls.items()}, "as it was", rounds))
        without = f"{made['without']:.1f}" if "without" in made else "-"
        speed = "".join(f"{called[0][k]:>14.2f}{called[1][k]:>7.2f}" for k in ("fold", "fuse"))
        print(f"{name:23}{left[0]:>14}{left[1]:>7}{without:>14}{made['with']:>13.1f}{speed}", flush=True)
    print("\nBelow 1 is faster. `fold` looks at the outputs before and after; `fuse` does not.")


if __name__ == "__main__":
    main()
