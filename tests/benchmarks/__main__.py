"""How long batch normalization and a training step take in bnbook, beside PyTorch and beside the textbook formulas.

    python -m tests.benchmarks [--rounds 25] [--threads 2]

Every round times every candidate once, in random order, and each is divided by PyTorch's time of the same round; the
table shows the median of these ratios, so that what slows the machine for a while slows both. Below 1 is faster than
PyTorch. The numbers belong to the machine they were taken on, and nothing in the tests depends on them.

Beside it, each with rivals of its own: `tests.benchmarks.folding`, `sync_batch_norm` (under torchrun) and `gpu`.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=25, help="at least 15 for numbers to be quoted (default: 25)")
parser.add_argument("--threads", type=int, default=2, help="of NumPy's BLAS and of PyTorch (default: 2)")
options = parser.parse_args()
# Read when NumPy and PyTorch are loaded. Passive: threads that wait do not keep a processor from the other library.
os.environ.update({name: str(options.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")})
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import ast  # noqa: E402
import inspect  # noqa: E402
import platform  # noqa: E402
import random  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from textwrap import dedent  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

from bnbook import functional as F  # noqa: E402
from bnbook import nn, optim, textbook  # noqa: E402
from bnbook.functional import _checks, _reduce  # noqa: E402
from bnbook.functional.batch_norm import update  # noqa: E402
from bnbook.models.numpy_cnn import cnn  # noqa: E402

AT_LEAST = 0.01  # seconds of calls that one timing averages over
LAYOUTS = {  # order of the axes (N, C, H, W) in memory, the outermost first
    "channels outermost": (1, 0, 2, 3),
    "batch innermost": (1, 2, 3, 0),
    "plain NCHW": (0, 1, 2, 3),
}


# --- batch normalization ---------------------------------------------------------------------------------------------


class TextbookBatchNorm(nn.Module):
    """`textbook.BatchNorm` as a layer of `bnbook.nn`, with parameters that an optimizer moves."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.layer = textbook.BatchNorm(num_features, dtype=np.float32)
        self.weight, self.bias = nn.Parameter(self.layer.weight), nn.Parameter(self.layer.bias)

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.layer.weight, self.layer.bias, self.layer.training = self.weight.data, self.bias.data, self.training
        return self.layer.forward(x)

    def backward(self, grad_y: np.ndarray) -> np.ndarray:
        grad_x = self.layer.backward(grad_y)
        self.weight.grad, self.bias.grad = self.layer.grad_weight, self.layer.grad_bias
        return grad_x


def batch_norms(shape: tuple[int, ...], order: tuple[int, ...], backward: bool) -> dict[str, Callable]:
    """One training pass of the layer per candidate. PyTorch has the same values in its own memory order."""
    rng = np.random.default_rng(0)
    x, grad_y = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    x_torch, grad_torch = torch.tensor(x, requires_grad=True), torch.tensor(grad_y)
    x, grad_y = (np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order)) for a in (x, grad_y))
    channels = shape[1]
    running_mean, running_var = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    weight, bias = (rng.normal(size=channels).astype(np.float32) for _ in range(2))
    plain = TextbookBatchNorm(channels)
    plain.weight.data, plain.bias.data = weight, bias
    theirs = (torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d)(channels)
    theirs.weight.data, theirs.bias.data = torch.tensor(weight), torch.tensor(bias)

    def run_torch():
        x_torch.grad = theirs.weight.grad = theirs.bias.grad = None
        y = theirs(x_torch)
        if not backward:
            return y.detach()
        y.backward(grad_torch)
        return x_torch.grad

    def run_bnbook():
        y, cache = F.batch_norm(x, running_mean, running_var, weight, bias, training=True)
        return F.batch_norm_backward(grad_y, cache)[0] if backward else y

    def run_textbook():
        y = plain(x)
        return plain.backward(grad_y) if backward else y

    expected = run_torch().numpy()
    for run in (run_bnbook, run_textbook):  # the time of a wrong result is of no interest
        np.testing.assert_allclose(run(), expected, rtol=0, atol=1e-4)
    return {"PyTorch": run_torch, "bnbook": run_bnbook, "textbook": run_textbook}


# --- the training step -----------------------------------------------------------------------------------------------


def training_steps(batch_size: int) -> dict[str, Callable]:
    """Forward, loss, backward and update (SGD with momentum) of the book's network; "textbook" has its batch norm."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, 1, 28, 28)).astype(np.float32)
    target = rng.integers(0, 10, batch_size)

    def numpy_step(model: nn.Sequential) -> Callable:
        criterion, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

        def step():
            optimizer.zero_grad()
            criterion(model(x), target)
            model.backward(criterion.backward())
            optimizer.step()

        return step

    plain = cnn(rng=0)
    plain.bn1, plain.bn2 = TextbookBatchNorm(32), TextbookBatchNorm(128)

    t = torch.nn
    model = t.Sequential(
        *(t.Conv2d(1, 32, 3), t.BatchNorm2d(32), t.ReLU(), t.MaxPool2d(2), t.Flatten()),
        *(t.Linear(32 * 13 * 13, 128), t.BatchNorm1d(128), t.ReLU(), t.Linear(128, 10)),
    )
    criterion = t.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x_torch, target_torch = torch.tensor(x), torch.tensor(target)

    def torch_step():
        optimizer.zero_grad()
        criterion(model(x_torch), target_torch).backward()
        optimizer.step()

    return {"PyTorch": torch_step, "bnbook": numpy_step(cnn(rng=0)), "textbook": numpy_step(plain)}


# --- timing ----------------------------------------------------------------------------------------------------------


def seconds(call: Callable) -> float:
    """The mean time of a call, over as many as fill `AT_LEAST`, after one that is not timed."""
    call()
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < AT_LEAST or calls == 0:
        call()
        calls += 1
    return elapsed / calls


def compare(candidates: dict[str, Callable], rounds: int) -> dict[str, tuple[float, np.ndarray]]:
    """Per candidate its median time in seconds, and the quartiles of its ratios to PyTorch."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name in random.sample(list(candidates), len(candidates)):
            times[name].append(seconds(candidates[name]))
    return {
        name: (float(np.median(t)), np.quantile(np.divide(t, times["PyTorch"]), [0.5, 0.25, 0.75]))
        for name, t in times.items()
    }


def cases() -> Iterator[tuple[str, Callable[[], dict[str, Callable]]]]:
    """(name of the row, what makes its candidates)."""
    for shape, layouts in (((64, 32, 26, 26), list(LAYOUTS)), ((128, 64, 14, 14), list(LAYOUTS)[::2])):
        for layout in layouts:
            for backward in (False, True):
                what = "forward+backward" if backward else "forward"
                yield (
                    f"{shape} {layout}, {what}",
                    lambda s=shape, o=LAYOUTS[layout], b=backward: batch_norms(s, o, b),
                )
    for backward in (False, True):
        what = "forward+backward" if backward else "forward"
        yield f"(256, 128), {what}", lambda b=backward: batch_norms((256, 128), (0, 1), b)
    for batch_size in (64, 128):
        yield f"CNN training step, batch {batch_size}", lambda n=batch_size: training_steps(n)


# --- the report ------------------------------------------------------------------------------------------------------


def lines_of_code(*functions: Callable) -> int:
    """Lines without docstrings, comments and blank ones, every statement written in the same way."""
    total = 0
    for function in functions:
        tree = ast.parse(dedent(inspect.getsource(inspect.unwrap(function))))
        body = tree.body[0].body
        if ast.get_docstring(tree.body[0]):
            body.pop(0)
        total += sum(bool(line.strip()) for line in ast.unparse(tree).splitlines())
    return total


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    torch.set_num_threads(options.threads)
    rounds, threads = options.rounds, options.threads
    print(f"{processor()}, {os.cpu_count()} processors, {platform.system()}")
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, PyTorch {torch.__version__}")
    print(f"float32, {threads} threads, OMP_WAIT_POLICY=PASSIVE, median of {rounds} interleaved rounds\n")
    print(f"{'':58}  {'PyTorch':>9}   {'bnbook / PyTorch':>20}   {'textbook / PyTorch':>20}")
    for name, make in cases():
        result = compare(make(), rounds)
        ratios = (f"{q[0]:.2f} ({q[1]:.2f} to {q[2]:.2f})" for _, q in (result["bnbook"], result["textbook"]))
        print(f"{name:58}  {1e3 * result['PyTorch'][0]:6.2f} ms   {'   '.join(f'{r:>20}' for r in ratios)}", flush=True)
    r, t, c = _reduce, textbook, _checks
    code = {
        "textbook": (t.statistics, t.forward, t.normalize, t.updated, t.backward, t.channel_axes, t.per_channel),
        "bnbook": (F.batch_norm, F.batch_norm_backward, update),
        "what makes it exact": (r.count, r.total, r._plan, r.moments, r._center, r.totals, r.inv_sqrt, r.per_channel),
        "what makes it fast": (
            *(r.minus, r._minus, r.scale_and_shift, r._scale_and_shift, r.residual, r._residual, r._along),
            r.in_parts,
        ),
        "its checks of the arguments": (c.check_batch_norm, c._check_statistics, c._check_training, c.check_affine),
    }
    print("\nIn brackets the middle half of the rounds; below 1 is faster than PyTorch eager in its own NCHW memory.")
    print("Lines of code:", ", ".join(f"{name} {lines_of_code(*functions)}" for name, functions in code.items()))


if __name__ == "__main__":
    main()
