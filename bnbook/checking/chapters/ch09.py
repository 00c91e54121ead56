"""Checkers of chapter 9, the same network in PyTorch and in Keras."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from ..exercises import Wrong, checker, recognized, same


@checker("ch09.running_gap")
def running_gap(answer, rng) -> None:
    """`answer(var, m, momentum, steps)` is how far PyTorch's running variance ends above that of Keras."""
    for steps in (3, 0, 1, *rng.integers(2, 40, 3)):
        m, momentum = int(rng.integers(2, 40)), rng.uniform(0.02, 0.6)
        x = rng.normal(0, rng.uniform(0.5, 4), (m, 1))
        mean, torch_var, keras_var = np.zeros(1), np.ones(1), np.ones(1)
        for _ in range(steps):
            F.batch_norm(x, mean, torch_var, training=True, momentum=momentum)
            keras_var += momentum * (x.var(axis=0) - keras_var)
        gap, share = x.var(axis=0) / (m - 1), 1 - (1 - momentum) ** steps
        same(
            np.ravel(answer(float(x.var()), m, momentum, int(steps))),
            torch_var - keras_var,
            f"The gap for m = {m}, α = {momentum:.3g} and {steps} steps",
            hint="Unroll both averages; they start from the same 1.",
            mistakes={
                "That is after very many steps.": gap,
                "That is after one step.": momentum * gap,
                "Old values fade: the steps do not just add up.": momentum * steps * gap,
                "α is the weight of the new value.": (1 - momentum**steps) * gap,
                "The unbiased variance is m/(m − 1) times the biased one.": share * x.var(axis=0) / m,
                "Keras's average is not subtracted.": torch_var - 1,
            },
        )


@checker("ch09.fc_weight")
def fc_weight(answer, rng) -> None:
    """`answer(kernel, shape)` is PyTorch's weight (units, C·H·W) of Keras's kernel (H·W·C, units), shape (H, W, C)."""
    for _ in range(4):
        channels, height, width, units, n = (int(k) for k in rng.permutation(np.arange(2, 8))[:5])
        kernel = rng.normal(size=(height * width * channels, units))
        weight = np.asarray(answer(kernel, (height, width, channels)))
        if weight.shape != kernel.shape[::-1]:
            raise Wrong(f"The weight should have shape {kernel.shape[::-1]}, got {weight.shape}.")
        x = rng.normal(size=(n, channels, height, width))
        flat = x.reshape(n, -1)
        same(
            flat @ weight.T,
            x.transpose(0, 2, 3, 1).reshape(n, -1) @ kernel,
            f"What the layer gives for maps with (H, W, C) = ({height}, {width}, {channels})",
            hint="PyTorch flattens (C, H, W): give each column the weights of its place.",
            mistakes={
                "The columns are still in Keras's order.": flat @ kernel,
                "Height and width are exchanged.": flat
                @ kernel.reshape(height, width, channels, units).transpose(2, 1, 0, 3).reshape(-1, units),
            },
        )


@checker("ch09.worst_std")
def worst_std(answer, rng) -> None:
    """`answer(a, b)` is the standard deviation of the input at which the output's differs most between ε = a and b."""

    def gap(std: float, a: float, b: float) -> float:
        return abs(std / np.sqrt(std**2 + a) - std / np.sqrt(std**2 + b))

    for a, ratio in zip(10 ** rng.uniform(-8, -2, 6), 10 ** rng.uniform(1, 4, 6), strict=True):
        b = a * ratio
        # Where the derivatives of both, ε/(σ² + ε)^(3/2), are equal.
        best = np.sqrt((a * b) ** (2 / 3) / (a ** (1 / 3) + b ** (1 / 3)))
        for pair in ((a, b), (b, a)):
            got = float(answer(*pair))
            if not got > 0:
                raise Wrong(f"A standard deviation is positive, got {got:g}.")
            if not gap(got, a, b) >= (1 - 1e-3) * gap(best, a, b):
                mistakes = {
                    "That is the variance of the input; its standard deviation is asked for.": best**2,
                    "It is not simply the mean of the two.": (np.sqrt(a) + np.sqrt(b)) / 2,
                    "It is not simply the geometric mean of the two.": (a * b) ** 0.25,
                    "That is √ε of the smaller one: go on.": np.sqrt(a),
                    "That is √ε of the larger one: go back.": np.sqrt(b),
                }
                raise Wrong(
                    f"For ε = {pair[0]:.2g} and {pair[1]:.2g} the outputs at {got:.3g} are {gap(got, a, b):.4f} apart; "
                    f"{gap(best, a, b):.4f} can be reached. {recognized(got, mistakes, tol=1e-3)}".rstrip()
                )


FAULTS = ("correct", "flatten order", "eps", "momentum", "statistics swapped", "frozen")


class Network:
    """Images (N, 2, 3, 4) to two logits by `network(x, training=False)`: normalize, flatten, multiply.

    Both sides of a port are such networks; `fault` is what was done wrong on the way.
    """

    def __init__(self, values: dict[str, np.ndarray], fault: str = "correct") -> None:
        self._v = {name: value.copy() for name, value in values.items()}
        self._fault = fault
        if fault == "statistics swapped":
            self._v["mean"], self._v["var"] = self._v["var"], self._v["mean"]

    def __call__(self, x, training: bool = False):
        v, fault = self._v, self._fault
        y, _ = F.batch_norm(
            x,
            v["mean"],
            v["var"],
            v["gamma"],
            v["beta"],
            training=training and fault != "frozen",
            momentum=0.9 if fault == "momentum" else 0.1,
            eps=1e-3 if fault == "eps" else 1e-5,
        )
        if fault == "flatten order":
            y = y.transpose(0, 2, 3, 1)
        return y.reshape(len(x), -1) @ v["weight"]


def pair(fault: str, rng: np.random.Generator) -> tuple[Network, Network]:
    """A network and its port with one fault."""
    values = {
        "gamma": rng.uniform(0.5, 2, 2) * rng.choice([-1, 1], 2),
        "beta": rng.normal(size=2),
        "mean": rng.uniform(0.5, 2, 2),  # positive, so that a variance that is none does not give itself away as NaN
        "var": rng.uniform(3, 5, 2),
        "weight": rng.normal(size=(24, 2)),
    }
    return Network(values), Network(values, fault)


@checker("ch09.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(source, port)` names what went wrong when `source` was ported."""
    for fault in rng.permutation(list(FAULTS) * 2):
        got = answer(*pair(str(fault), rng))
        if got not in FAULTS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, FAULTS))}.")
        if got != fault:
            raise Wrong(f"A port that is {str(fault)!r} was called {got!r}.")


@checker("ch09.freeze")
def freeze(answer, rng) -> None:
    """`answer(model)` freezes every batch normalization of a PyTorch model for good, and nothing else."""
    import torch
    from torch import nn

    def network() -> nn.Module:
        inner = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5))
        return nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 5), inner)

    torch.manual_seed(int(rng.integers(2**31)))
    model = network()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for layer in layers:
            for value in (layer.weight, layer.bias, layer.running_mean):
                value.normal_()
            layer.running_var.uniform_(0.5, 2)
    original = {name: value.clone() for name, value in model.state_dict().items()}
    returned = answer(model)
    if returned is not None and returned is not model:
        raise Wrong("Change the model that you are given; return it or nothing.")

    model.train()  # as every training loop does
    if not model[4][3].training:
        raise Wrong("After model.train() the dropout layer should be in training mode.")
    handles = [layer.register_forward_hook(_seen) for layer in layers]
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1)
    model(torch.randn(6, 1, 4, 4)).square().sum().backward()
    optimizer.step()
    for handle in handles:
        handle.remove()
    for layer in layers:
        x, y = layer.seen
        name = type(layer).__name__
        expected = nn.functional.batch_norm(
            x, *(original[f"{_path(model, layer)}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        )
        if not torch.allclose(y, expected, atol=1e-5):
            raise Wrong(f"After model.train(), {name} does not compute what it does in evaluation mode.")
    after = model.state_dict()
    for name, value in original.items():
        moved, of_norm = not torch.equal(value, after[name]), name.rpartition(".")[0] in ("1", "4.1")
        if moved and of_norm:
            raise Wrong(f"After model.train() and one step {name} has moved.")
        if not moved and not of_norm:
            raise Wrong(f"After one step {name} has not moved: freeze the batch normalizations alone.")


def _seen(layer, inputs, output) -> None:
    layer.seen = inputs[0].detach(), output.detach()


def _path(model, layer) -> str:
    return next(name for name, module in model.named_modules() if module is layer)
