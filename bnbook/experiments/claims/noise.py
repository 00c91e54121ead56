"""What is left of the gain of batch normalization when one thing that it does is taken away.

Two things are taken away, each the cause in an explanation: stable distributions, by noise behind every batch
normalization whose mean and scale change with every update; and free lengths of the weights, by putting each row of
weights back to its first length after every update. `rate_tuning` reads another claim from the same rows.

Rates fall to zero along half a cosine. Each seed draws its own training images, and 10,000 others validate. Rates are
chosen on the seeds of the pilot; fresh seeds run what the claims and the predictions of `explanations` compare.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ...models.torch_mlp import mlp
from ...optim import cosine
from .. import Choice, Comparison, best, compare, fresh, pilot, select
from ..policy import POINTS
from ..protocol import LAST_LOSSES, WEIGHTS, evaluate, split, subset, updates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does the gain of batch normalization go when the distributions behind it are made unstable?"
CLAIM = (
    "We propose a new mechanism, which we call Batch Normalization, that takes a step towards reducing internal"
    " covariate shift, and in doing so dramatically accelerates the training of deep neural nets."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "Stable distributions are the reason why batch normalization helps."
CHAPTER, VERSION, SEEDS, CONFIRM = 17, 2, 5, True
DATASET = "Fashion-MNIST, 10,000 training images, drawn anew for each seed"
NETWORK = "fully connected, ReLU, 5 hidden layers of 128"
BATCH_SIZE, STEPS = 128, 390  # five epochs of 78 updates
METRIC, DELTA = "test_accuracy", POINTS.delta
FACTOR = "the initialization"

WIDTHS = (128,) * 5
INITS = {init: WEIGHTS[init] for init in ("default", "he")}
STANDARD, BN = "standard", "BN"
NOISY, NOISY_STANDARD, HELD = "BN + noise", "standard + noise", "BN, lengths held"
ARMS = {  # name: (norm, noise, lengths held)
    STANDARD: ("none", False, False),
    NOISY_STANDARD: ("none", True, False),
    BN: ("batch", False, False),
    NOISY: ("batch", True, False),
    HELD: ("batch", False, True),
}
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # the highest with batch normalization alone
HIGHEST = (BN, HELD)  # the arms that are tried at the highest rate as well
VALIDATION = 10_000  # images, none of which any run trains on
GAIN = "gain_in_test_accuracy"
PARTS = ("what the noise takes", "what it leaves")


class Noise(nn.Module):
    """Scale and shift every unit at random in training: x → s·x + m, in the manner of Santurkar et al. (2018).

    With every call each unit gets a mean shift from −0.5 to 0.5 and a mean scale from 1 to 1.25; the values of each
    example lie around these. Of images (N, C, H, W) a channel is a unit, and all pixels of an example's channel have
    one shift and one scale. In evaluation x is multiplied by the mean scale.
    """

    MEAN, SCALE, JITTER = 0.5, 1.25, 0.1

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)  # so that other random numbers stay the same

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * (1 + self.SCALE) / 2
        units, g = x.shape[1], self.generator
        mean = self.MEAN * (2 * torch.rand(units, generator=g) - 1)
        scale = 1 + (self.SCALE - 1) * torch.rand(units, generator=g)
        shift = mean + self.JITTER * (2 * torch.rand(x.shape[:2], generator=g) - 1)
        scale = scale + self.JITTER * torch.randn(x.shape[:2], generator=g)
        shape = (*x.shape[:2], *[1] * (x.ndim - 2))  # of a value per example and unit
        return x * scale.view(shape) + shift.view(shape)


def network(arm: str, init: str, seed: int) -> nn.Sequential:
    """The network of an arm; all arms of one seed start from the same weights."""
    norm, noisy, _ = ARMS[arm]
    torch.manual_seed(seed)
    model = mlp(norm, widths=WIDTHS, init=init)
    return with_noise(model, seed) if noisy else model


def with_noise(model: nn.Sequential, seed: int) -> nn.Sequential:
    """The network with `Noise` right before each activation, behind a normalization that stands there."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in model.named_children():
        if name.startswith("act"):
            layers[name.replace("act", "noise")] = Noise(1000 * seed + len(layers))
        layers[name] = layer
    return nn.Sequential(layers)


def hidden_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of the linear layers but the last."""
    return [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)][:-1]


@torch.no_grad()
def hold_lengths(weights: Sequence[Tensor], lengths: Sequence[Tensor]) -> None:
    """Scale every row of the weights to its length in `lengths`, of shape (rows, 1)."""
    for weight, length in zip(weights, lengths, strict=True):
        weight *= length / weight.norm(dim=1, keepdim=True)


def log10_turn(model: nn.Module, lr: float) -> float:
    """How far the last update, at this rate, turned the hidden weights: its length over theirs, mean of the logarithms.

    A layer without a gradient counts as turned by 10⁻¹⁰.
    """
    turns = [(lr * weight.grad.norm() / weight.norm()).item() for weight in hidden_weights(model)]
    return sum(math.log10(max(turn, 1e-10)) for turn in turns) / len(turns)


def grid(quick: bool = False) -> list[dict]:
    """Every arm and start at every rate, the highest with batch normalization alone; quick: every other rate."""
    return [
        {"arm": arm, "init": init, "lr": lr}
        for init in INITS
        for lr in RATES[:: 2 if quick else 1]
        for arm in ARMS
        if lr < RATES[-1] or arm in HIGHEST
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; scores after the last update, training loss over the last epoch, mean turn of all updates."""
    arm, lr = setting["arm"], setting["lr"]
    model = network(arm, setting["init"], seed)
    weights = hidden_weights(model)
    lengths = [weight.detach().norm(dim=1, keepdim=True) for weight in weights]
    losses, turned = [], []
    for step, loss in updates(
        model, *subset(10_000, seed), steps=STEPS, lr=lr, schedule="cosine", seed=seed, batch_size=BATCH_SIZE
    ):
        losses.append(loss)
        turned.append(log10_turn(model, cosine(step - 1, STEPS, lr)))
        if ARMS[arm][2]:
            hold_lengths(weights, lengths)
    tested = evaluate(model, *split("test"))
    diverged = step < STEPS or not math.isfinite(tested.loss)
    return {
        "diverged": diverged,
        "val_accuracy": evaluate(model, *split("val", VALIDATION)).accuracy,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "train_loss": None if diverged else sum(losses[-LAST_LOSSES:]) / len(losses[-LAST_LOSSES:]),
        "log10_turn": None if diverged else sum(turned) / len(turned),
        "correct": tested.correct,
    }


def at_best_rate(rows: Sequence[Mapping], init: str, arm: str) -> Choice:
    """An arm at the rate with the highest mean validation accuracy."""
    return best(select(rows, init=init, arm=arm), over="lr")


def at_rate(rows: Sequence[Mapping], init: str, arm: str, lr: float) -> list[Mapping]:
    """The runs of an arm at a rate, on the seeds that confirm."""
    return select(fresh(rows), init=init, arm=arm, lr=lr)


def starts(rows: Sequence[Mapping]) -> list[str]:
    """The initializations there are rows of."""
    there = {row["setting"]["init"] for row in rows}
    return [init for init in INITS if init in there]


class Gains(NamedTuple):
    """The two parts of the gain of batch normalization; their sum is the gain."""

    takes: Comparison
    leaves: Comparison


def gains(rows: Sequence[Mapping], init: str, without: str = NOISY, equal_rate: bool = False) -> Gains:
    """BN minus BN with something taken away, and that minus the standard network.

    Args:
        without: the arm in which it is taken away.
        equal_rate: all three at the best rate of the standard network, and not each at its own.
    """
    arms = (BN, without, STANDARD)
    if equal_rate:
        own = at_best_rate(rows, init, STANDARD)
        chosen = [at_rate(rows, init, arm, own.values["lr"]) for arm in (BN, without)] + [own]
    else:
        chosen = [at_best_rate(rows, init, arm) for arm in arms]
    return Gains(*(compare(INITS[init], chosen[i], chosen[i + 1], arms=(arms[i], arms[i + 1])) for i in (0, 1)))


def comparisons(rows: list[dict], without: str = NOISY, equal_rate: bool = False) -> list[Comparison]:
    """What is taken from the gain, in points of test accuracy, minus what is left of it."""
    result = []
    for init in starts(rows):
        parts = gains(rows, init, without, equal_rate)
        a, b = ({seed: part.a[seed] - part.b[seed] for seed in part.seeds} for part in parts)
        edges = tuple(dict.fromkeys(edge for part in parts for edge in part.edges))
        diverged = (parts.takes.diverged[0] + parts.takes.diverged[1], parts.leaves.diverged[1])
        names = PARTS if without == NOISY else ("what holding takes", "what it leaves")
        comparison = Comparison(INITS[init], a, b, arms=names, metric=GAIN, edges=edges, diverged=diverged)
        result.append(replace(comparison, settings=confirmed(rows, init)))
    return result


def confirmed(rows: Sequence[Mapping], init: str) -> tuple[dict, ...]:
    """What fresh seeds run for this claim: each arm at its best rate, and all at that of the standard network."""
    own = {arm: at_best_rate(rows, init, arm).values["lr"] for arm in ARMS}
    return tuple(
        {"arm": arm, "init": init, "lr": lr} for arm in ARMS for lr in dict.fromkeys((own[arm], own[STANDARD]))
    )


def figure(rows: list[dict]) -> Figure:
    """Test accuracy over the learning rate in the pilot, a panel for each start; the rings are the best rates."""
    import matplotlib.pyplot as plt

    from ... import plotting

    looks = {
        STANDARD: (plotting.WITHOUT_BN, "-"),
        NOISY_STANDARD: (plotting.WITHOUT_BN, ":"),
        BN: (plotting.WITH_BN, "-"),
        NOISY: (plotting.WITH_BN, ":"),
        HELD: (plotting.GREEN, "--"),
    }
    rows = pilot(rows)
    picture, axes = plt.subplots(1, len(starts(rows)), figsize=(6.4, 3.8), sharey=True, squeeze=False)
    for ax, init in zip(axes[0], starts(rows), strict=True):
        for arm, (color, style) in looks.items():
            runs = select(rows, init=init, arm=arm)
            rates = sorted({row["setting"]["lr"] for row in runs})
            scores = [[0.1 if r["diverged"] else r["test_accuracy"] for r in select(runs, lr=lr)] for lr in rates]
            means = [sum(values) / len(values) for values in scores]
            ax.plot(rates, means, style, color=color, label=arm)
            for lr, values in zip(rates, scores, strict=True):
                ax.plot([lr] * len(values), values, ".", ms=3, color=color, alpha=0.6)
            lr = at_best_rate(rows, init, arm).values["lr"]
            ax.plot(lr, means[rates.index(lr)], "o", ms=9, mfc="none", color=color)
        ax.set(xscale="log", xlabel="learning rate", title=INITS[init], ylim=(0.6, 0.9))
    axes[0, 0].set_ylabel("test accuracy")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return picture
