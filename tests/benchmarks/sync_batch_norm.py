"""What synchronizing costs: a training pass of the layer beside its rivals, in several processes.

    torchrun --standalone --nproc_per_node 2 -m tests.benchmarks.sync_batch_norm [--rounds 25] [--device cuda]

The rivals are `torch.nn.BatchNorm2d`, which sends nothing, and on GPUs `torch.nn.SyncBatchNorm`. Every round times each
candidate once, all processes starting together, and divides by the plain layer's time of the same round; the table
shows the median of these ratios. The numbers belong to the machine they were taken on; no test depends on them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bnbook.kernels import sync_batch_norm

SHAPES = ((8, 64, 56, 56), (8, 256, 14, 14), (2, 512, 7, 7))
PLAIN = "torch.nn.BatchNorm2d"


def candidates(channels: int, device: str) -> dict[str, nn.Module]:
    made = {PLAIN: nn.BatchNorm2d(channels), "bnbook": sync_batch_norm.SyncBatchNorm(channels)}
    if device == "cuda":
        made["torch.nn.SyncBatchNorm"] = nn.SyncBatchNorm(channels)
    return {name: layer.to(device) for name, layer in made.items()}


def seconds(layer: nn.Module, x: Tensor, g: Tensor) -> float:
    """Of one pass forward and backward, begun by all processes at once."""
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    dist.barrier()
    wait()
    start = time.perf_counter()
    layer(x).backward(g)
    wait()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="(default: 25)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    if options.device == "cuda":
        torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    for shape in SHAPES:
        x, g = (torch.randn(shape, device=options.device) for _ in range(2))
        x.requires_grad_()
        layers = candidates(shape[1], options.device)
        times: dict[str, list[float]] = {name: [] for name in layers}
        for _ in range(options.rounds + 2):  # the first two are not counted
            for name, layer in layers.items():
                times[name].append(seconds(layer, x, g))
        plain = times[PLAIN][2:]
        for name, found in times.items():
            ratio = statistics.median(t / p for t, p in zip(found[2:], plain, strict=True))
            if dist.get_rank() == 0:
                print(f"{shape!s:20} {name:24} {1e3 * statistics.median(found[2:]):8.2f} ms  {ratio:6.2f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
