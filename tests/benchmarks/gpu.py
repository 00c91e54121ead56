"""The fused batch normalization on a card beside PyTorch's ways to the same, as ratios in one process.

    python -m tests.benchmarks.gpu [--rounds 20]

The measuring is that of the study `gpu_speed`, whose rows the book keeps; here nothing is kept. Where there is no card
it says so and ends.
"""

from __future__ import annotations

import argparse

import torch

from bnbook.experiments.studies import gpu_speed
from bnbook.kernels import batch_norm_triton


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=gpu_speed.ROUNDS)
    rounds = parser.parse_args().rounds
    if not torch.cuda.is_available():
        print("skipped: there is no CUDA device here")
        return
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, median of {rounds} interleaved rounds")
    print("forward and backward: share of a copy's bandwidth, times of PyTorch eager and compiled over the fused one\n")
    for setting in gpu_speed.grid():
        if setting["dtype"] == "float64":
            continue
        given = gpu_speed.tensors(setting, 0)
        if reason := batch_norm_triton.unavailable(given["x"]):
            print(f"skipped: {reason}")
            return
        worst = max(gpu_speed.errors(given).values())  # the time of a wrong result is of no interest
        assert worst <= gpu_speed.TOLERANCES[setting["dtype"]], (setting, worst)
        ways = gpu_speed.calls(given)
        seconds = {
            part: gpu_speed.measure({way: pair[i] for way, pair in ways.items()}, rounds, "cuda")
            for i, part in enumerate(("forward", "both"))
        }
        found = gpu_speed.summary(seconds, setting["residual"])
        name = ", ".join(str(setting[key]) for key in ("shape", "dtype", "layout")) + " + r" * setting["residual"]
        print(f"{name:42} {found['of_copy']:6.2f} {found['eager']:6.2f} {found['compiled']:6.2f}", flush=True)


if __name__ == "__main__":
    main()
