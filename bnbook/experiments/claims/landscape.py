"""How far a gradient can be trusted along its step, and how far an update moves the ground under the layers.

Before chosen updates of a training run four things are measured, for a step with a batch drawn for it: the loss and
the gradient further along the step; the gradient of each layer after the layers before it were updated; how far the
distributions of the activations move; and how far the weights turn. `covariate_shift` reads another claim from the
same rows.

Rates are constant: under a schedule rate times curvature has no value to compare at; `studies.landscape_cosine` is
beside it, where they fall to zero. Each seed draws its own training images, and 10,000 others validate. Rates are
chosen on the seeds of the pilot, and fresh seeds give the verdict.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...models.torch_mlp import mlp
from ...optim import cosine
from .. import Choice, Comparison, best, fresh, pilot, select
from ..policy import COST
from ..protocol import evaluate, split, subset, updates
from .noise import INITS, VALIDATION, WIDTHS, starts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is the loss smoother along a step of gradient descent with batch normalization than without?"
CLAIM = (
    "Instead, we uncover a more fundamental impact of BatchNorm on the training process: it makes the optimization"
    " landscape significantly smoother."
)
SOURCE = "santurkar2018how"
FOLKLORE = "It works because it makes the loss smoother."
CHAPTER, VERSION, SEEDS, CONFIRM = 17, 2, 5, True
DATASET = "Fashion-MNIST, 10,000 training images, drawn anew for each seed"
NETWORK = "fully connected, ReLU, 5 hidden layers of 128"
BATCH_SIZE, STEPS = 128, 390  # five epochs of 78 updates
METRIC = "smoothness_in_decades"
EFFECT = "times less curvature along the step"
DELTA = COST.delta
NEEDS_MORE = True  # "significantly smoother"
CHANCE = None
FACTOR = "the initialization", "what is held equal"

NORMS = {"with BN": "batch", "without BN": "none"}
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
PROBED = (*range(1, 31, 2), *range(33, 91, 6), *range(100, STEPS, 20), STEPS)  # the updates before which it is looked
ALONG = (0.5, 1.0, 2.0, 4.0)  # steps along the gradient, in units of the learning rate
LEVELS = (1.1, 1.0, 0.9, 0.8, 0.7)  # training losses at which the arms are matched
REFERENCE = 500  # training images whose activations and loss are followed
PRODUCTS = (1.1, 1.4)  # of rate and curvature; between them both networks pass within the grid from either start

MEASURES = ("loss", "loss_range", "gradient_change", "beta", "gradient_shift", "cosine", "distribution_shift", "turn")
SAME_UPDATES, SAME_LOSS = "same updates", "same loss"


def length(tensors: Sequence[Tensor]) -> float:
    """The Euclidean length of all of them together."""
    return math.sqrt(sum(t.double().square().sum().item() for t in tensors))


def distribution_shift(before: Tensor, after: Tensor) -> float:
    """How far the distributions of units move, in units of their spread.

    Args:
        before, after: activations (examples, units), or of images (examples, channels, height, width): the values of a
            channel at all pixels are those of one unit.

    Returns:
        the root of the mean over units of the squared Wasserstein-2 distance between the two distributions of a unit's
        values, over the root of the mean of their variance before.
    """
    before, after = (values.double().movedim(1, -1).flatten(0, -2) for values in (before, after))
    moved = (after.sort(dim=0).values - before.sort(dim=0).values).square().mean()
    return (moved / before.var(dim=0, correction=0).mean()).sqrt().item()


def log10(value: float) -> float:
    """The decimal logarithm; −inf of 0, NaN of what has none."""
    if value == 0:
        return -math.inf
    return math.log10(value) if value > 0 else math.nan


@torch.no_grad()
def activations(model: nn.Sequential, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The outputs of the activation functions, and the logits; in the model's mode."""
    found = []
    for name, layer in model.named_children():
        x = layer(x)
        if name.startswith("act"):
            found.append(x)
    return found, x


def layers(model: nn.Sequential) -> list[list[nn.Parameter]]:
    """The parameters of layer 1, 2, …: weights and bias of its linear map, then those of its normalization."""
    found: list[list[nn.Parameter]] = []
    for layer in model:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            found.append([])
        if found:
            found[-1] += layer.parameters()
    return found


def probe(model: nn.Sequential, x: Tensor, y: Tensor, lr: float, reference: tuple[Tensor, Tensor]) -> dict[str, float]:
    r"""Measure what a step of gradient descent from here would meet; the model stays as it is.

    Args:
        model: from `torch_mlp.mlp` or `torch_conv.vgg` of `bnbook.models`.
        x, y: the batch of the step.
        lr: the step η.
        reference: images and labels on which loss and activations are followed.

    Returns:
        the MEASURES. ∇ is the gradient of the batch's loss in all parameters, Δ(s) its change after the step s·η·∇.
        All but the loss and the cosine are decimal logarithms; of layers, the mean over layers is taken last.
        loss: on the reference, in training mode.
        loss_range: highest minus lowest loss of the batch at s = 0 and those of ALONG.
        gradient_change: the largest ‖Δ(s)‖.
        beta: the largest ‖Δ(s)‖ / (s·η·‖∇‖), the effective β-smoothness.
        gradient_shift: ‖G′−G‖ / ‖G‖ for the weights of each layer after the first, where G′ is their gradient when all
        layers before have been updated (Santurkar et al. 2018, definition 2.1, here relative to G).
        cosine: of G and G′.
        distribution_shift: that of the activations, by the update.
        turn: ‖ηG‖ / ‖W‖ of the hidden weights.
    """
    model = copy.deepcopy(model).train()
    parts = layers(model)
    parameters = [p for part in parts for p in part]
    start = [p.detach().clone() for p in parameters]
    before, logits = activations(model, reference[0])

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    losses = [loss()]
    gradient = torch.autograd.grad(losses[0], parameters)
    remaining = iter(gradient)
    shifts, cosines, turns = [], [], []
    for i, part in enumerate(parts):
        own = [next(remaining) for _ in part]
        size = length(own[:1])
        if i > 0:
            (after,) = torch.autograd.grad(loss(), part[:1])
            shifts.append(log10(length([after - own[0]]) / size) if size else math.nan)
            cosines.append(nn.functional.cosine_similarity(after.flatten(), own[0].flatten(), dim=0).item())
        if i < len(parts) - 1:
            turns.append(log10(lr * size / length(part[:1])))
        with torch.no_grad():
            for p, g in zip(part, own, strict=True):
                p -= lr * g
    shifted = [
        log10(distribution_shift(a, b)) for a, b in zip(before, activations(model, reference[0])[0], strict=True)
    ]

    changes = []
    for s in ALONG:
        with torch.no_grad():
            for p, p0, g in zip(parameters, start, gradient, strict=True):
                p.copy_(p0 - s * lr * g)
        losses.append(loss())
        there = torch.autograd.grad(losses[-1], parameters)
        changes.append(length([a - b for a, b in zip(there, gradient, strict=True)]))
    values = [value.item() for value in losses]
    size = lr * length(gradient)
    return {
        "loss": nn.functional.cross_entropy(logits, reference[1]).item(),
        "loss_range": log10(max(values) - min(values)),
        "gradient_change": log10(max(changes)),
        "beta": log10(max(c / s for c, s in zip(changes, ALONG, strict=True)) / size) if size else math.nan,
        "gradient_shift": over_layers(shifts),
        "cosine": over_layers(cosines),
        "distribution_shift": over_layers(shifted),
        "turn": over_layers(turns),
    }


def over_layers(values: Sequence[float]) -> float:
    """Their mean; NaN where one is −∞ and another ∞: in a diverged network one layer may stand still, another burst."""
    return math.nan if {-math.inf, math.inf} <= set(values) else fmean(values)


def grid(quick: bool = False) -> list[dict]:
    """Both networks from both starts at every rate; quick: one rate."""
    return [
        {"norm": norm, "init": init, "lr": lr}
        for init in INITS
        for lr in (RATES[2:3] if quick else RATES)
        for norm in NORMS.values()
    ]


def run(setting: dict, seed: int, schedule: str = "constant") -> dict:
    """Train one network and probe it on the way; of every measure the values before the updates of PROBED.

    Args:
        schedule: of the rate, see `protocol.updates`; a probe's step is that of the update that it stands before.
    """
    lr = setting["lr"]
    torch.manual_seed(seed)
    model = mlp(setting["norm"], widths=WIDTHS, init=setting["init"])
    x, y = subset(10_000, seed)
    drawn = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {name: [] for name in MEASURES}

    def look(done: int = 0) -> None:
        batch = torch.randint(len(x), (BATCH_SIZE,), generator=drawn)
        rate = cosine(done, STEPS, lr) if schedule == "cosine" else lr
        probed = probe(model, x[batch], y[batch], rate, (x[:REFERENCE], y[:REFERENCE]))
        for name, value in probed.items():
            found[name].append(round(value, 4))

    look()
    for step, _ in updates(model, x, y, steps=STEPS, lr=lr, schedule=schedule, seed=seed, batch_size=BATCH_SIZE):
        if step + 1 in PROBED:
            look(step)
    tested = evaluate(model, *split("test"))
    return {
        **found,
        METRIC: None if step < STEPS else -over_updates(found["beta"]),
        "diverged": step < STEPS or not math.isfinite(tested.loss),
        "val_accuracy": evaluate(model, *split("val", VALIDATION)).accuracy,
        "test_accuracy": tested.accuracy,
        "correct": tested.correct,
    }


def over_updates(values: Sequence[float], probed: Sequence[int] | None = None) -> float:
    """The mean over the updates from the first to the last that was probed, with straight lines between them.

    Args:
        probed: the updates before which the values were measured, in order; left out: PROBED.
    """
    probed = PROBED if probed is None else probed
    return float(np.interp(range(probed[0], probed[-1] + 1), probed, values).mean())


def at_the_levels(values: Sequence[float], losses: Sequence[float]) -> float | None:
    """The mean of a measure over the LEVELS, each where the loss first reaches it, with straight lines between probes.

    None where a level is not reached.
    """
    found = []
    for level in LEVELS:
        after = next((i for i, loss in enumerate(losses) if loss <= level), None)
        if not after:
            return None
        share = (losses[after - 1] - level) / (losses[after - 1] - losses[after])
        found.append(values[after - 1] + share * (values[after] - values[after - 1]))
    return fmean(found)


def summary(row: Mapping, measure: str, held: str) -> float | None:
    """A measure of a run over the same updates or at the same losses as another's; None where the run diverged."""
    if row["diverged"]:
        return None
    return over_updates(row[measure]) if held == SAME_UPDATES else at_the_levels(row[measure], row["loss"])


def choices(rows: Sequence[Mapping], init: str, own_rate: bool = False) -> list[tuple[list[Mapping], Choice]]:
    """The rows of the network with BN and of the one without, and the choice that the rate comes from.

    Args:
        own_rate: each at its own best rate, and not both at the best rate of the network without.
    """
    chosen = [best(select(rows, init=init, norm=norm), over="lr") for norm in NORMS.values()]
    if own_rate:
        return [(choice.rows, choice) for choice in chosen]
    return [(select(fresh(rows), init=init, norm=norm, **chosen[1].values), chosen[1]) for norm in NORMS.values()]


def beside(rows: list[dict]) -> list[dict]:
    """Each network at its own best rate."""
    return [runs[0]["setting"] for init in starts(rows) for runs, _ in choices(rows, init, own_rate=True)]


def comparisons(
    rows: list[dict],
    measure: str = "beta",
    *,
    metric: str = METRIC,
    words: str = "",
    held: Sequence[str] = (SAME_UPDATES, SAME_LOSS),
    own_rate: bool = False,
) -> list[Comparison]:
    """By how many powers of ten a measure is smaller with BN: minus its mean logarithm, with BN minus without.

    Args:
        measure: one of MEASURES that is a logarithm.
        words: put into the names of the conditions.
        held: what is held equal between the two networks, SAME_UPDATES or SAME_LOSS or both.
        own_rate: see `choices`.
    """
    return [
        smaller(
            ", ".join(part for part in (INITS[init], words, what) if part),
            dict(zip(NORMS, choices(rows, init, own_rate), strict=True)),
            partial(summary, measure=measure, held=what),
            metric=metric,
            levels=(init, words, what) if words else (init, what),
        )
        for init in starts(rows)
        for what in held
    ]


def smaller(
    name: str,
    arms: Mapping[str, tuple[Sequence[Mapping], Choice]],
    value: Callable[[Mapping], float | None],
    **more: object,
) -> Comparison:
    """By how much a value of a run is smaller in the first of two arms than in the second.

    Args:
        arms: the rows of each, and the choice that their setting comes from.
        value: of a row; None has no interval.
        more: of the comparison.
    """
    values = [{row["seed"]: value(row) for row in runs} for runs, _ in arms.values()]
    return Comparison(
        name,
        *({seed: None if v is None else -v for seed, v in arm.items()} for arm in values),
        arms=tuple(arms),
        edges=tuple(dict.fromkeys(f"{edge} of {arm!r}" for arm, (_, choice) in arms.items() for edge in choice.edge)),
        diverged=tuple(sum(row["diverged"] for row in runs) for runs, _ in arms.values()),
        settings=tuple(runs[0]["setting"] for runs, _ in arms.values()),
        **more,
    )


def at_equal_product(rows: Sequence[Mapping], product: float) -> list[Comparison]:
    """By how many powers of ten the curvature ℓ is smaller with BN where rate times curvature is equal; no verdict.

    Training tends to where ηℓ is of the size of two, so that at an equal rate the curvatures can hardly differ. So each
    network and seed has the rate at which its ηℓ, the geometric mean over the second half of the updates, passes the
    product; between two rates of the grid the logarithm is interpolated along theirs. There ℓ is the product over η.

    Args:
        product: ηℓ; a network that does not pass it from one rate to the next has no value.
    """
    found = []
    for init in starts(rows):
        arms: list[dict[int, float | None]] = []
        for norm in NORMS.values():
            curves: dict[int, list[tuple[float, float]]] = {}
            for row in select(pilot(rows), init=init, norm=norm):
                if not row["diverged"]:
                    late = fmean(beta for beta, step in zip(row["beta"], PROBED, strict=True) if step > STEPS / 2)
                    rate = log10(row["setting"]["lr"])
                    curves.setdefault(row["seed"], []).append((rate, rate + late))
            arms.append({seed: _passes(sorted(curve), log10(product)) for seed, curve in curves.items()})
        found.append(Comparison(INITS[init], *arms, arms=tuple(NORMS), metric=METRIC))
    return found


def _passes(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Where straight lines between the points, in order, first rise through a level."""
    for (x, y), (next_x, next_y) in pairwise(curve):
        if y <= level < next_y:
            return x + (next_x - x) * (level - y) / (next_y - y)
    return None


def figure(rows: list[dict]) -> Figure:
    """Range of the loss, change of the gradient and curvature (effective β) over the updates, at equal rate."""
    names = {"loss_range": "range of the loss", "gradient_change": "change of gradient", "beta": "curvature"}
    return over_time(rows, names)


def over_time(rows: Sequence[Mapping], measures: Mapping[str, str]) -> Figure:
    """A row of panels for each measure, at equal rate; lines are means over seeds of logarithms, bands reach over them.

    Args:
        measures: name of a logarithm in the rows → its name on the axis.
    """
    panels = {}
    for init in starts(rows):
        arms = choices(rows, init)
        panels[f"{INITS[init]}, rate {arms[-1][1].values['lr']:g}"] = [runs for runs, _ in arms]
    return draw_over_time(panels, measures, PROBED)


def draw_over_time(
    panels: Mapping[str, Sequence[Sequence[Mapping]]], measures: Mapping[str, str], probed: Sequence[int]
) -> Figure:
    """A row of panels for each measure, in each the runs with BN and those without; see `over_time`.

    Args:
        panels: the title of a column → the rows of the network with BN and of the one without.
        measures: name of a logarithm in the rows → its name on the axis.
        probed: the updates before which it was measured.
    """
    import matplotlib.pyplot as plt

    from ... import plotting

    picture, axes = plt.subplots(
        len(measures),
        len(panels),
        figsize=(6.4, 1.6 * len(measures) + 0.7),
        dpi=75,
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for column, (title, arms) in zip(axes.T, panels.items(), strict=True):
        for arm, runs, color in zip(NORMS, arms, (plotting.WITH_BN, plotting.WITHOUT_BN), strict=True):
            for ax, measure in zip(column, measures, strict=True):
                logs = np.array([row[measure] for row in runs if not row["diverged"]])
                low, high = 10.0 ** logs.min(axis=0), 10.0 ** logs.max(axis=0)
                ax.fill_between(probed, low, high, color=color, alpha=0.25, lw=0)
                ax.plot(probed, 10.0 ** logs.mean(axis=0), color=color, label=arm)
                ax.set_yscale("log")
        column[0].set_title(title)
        column[-1].set_xlabel("updates")
    for ax, name in zip(axes[:, 0], measures.values(), strict=True):
        ax.set_ylabel(name)
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
