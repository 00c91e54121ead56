"""Checkers of chapter 26, should you use it today?"""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np

from ..exercises import Wrong, checker, same


@checker("ch26.values")
def values(answer, rng) -> None:
    """`answer(n, size, layers)`: m after each layer (kernel, stride, padding), of n square images of so many pixels."""
    for _ in range(8):
        n, size = int(rng.integers(2, 40)), int(rng.integers(30, 300))
        kinds = ((3, 0), (3, 1), (5, 1), (2, 0))  # kernel and padding
        drawn = rng.choice(kinds, int(rng.integers(3, 6)))
        layers = [(int(kernel), int(rng.integers(1, 3)), int(padding)) for kernel, padding in drawn]
        layers.insert(0, (7, 2, 3))
        sides, unrounded = [size], float(size)
        wrong = []
        for kernel, stride, padding in layers:
            sides.append((sides[-1] + 2 * padding - kernel) // stride + 1)
            unrounded = (unrounded + 2 * padding - kernel) / stride + 1
            wrong.append(unrounded)
        side = np.array(sides, float)
        same(
            answer(n, size, list(layers)),
            n * side[1:] ** 2,
            f"m for {n} images of {size} pixels and the layers {layers}",
            hint="A layer leaves floor((size + 2 padding − kernel) / stride) + 1 pixels a side; m counts N·H·W.",
            mistakes={
                "That is without the images: a statistic is taken over all N of them.": side[1:] ** 2,
                "Images have two sides: H times W.": n * side[1:],
                "That is what enters the layers; the normalization stands behind them.": n * side[:-1] ** 2,
                "Half a pixel is none: round down at every layer.": n * np.array(wrong) ** 2,
            },
        )


KINDS = ("BN", "LN", "GN", "IN", "RMS")


def _model(rng: np.random.Generator):
    """A PyTorch model with nested, derived, shared and misleading layers."""
    from torch import nn

    class BatchNormAct(nn.BatchNorm2d):
        """As libraries have them: a normalization with its activation."""

    class NormFree(nn.Module):
        """A name that promises what it does not hold."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU())

    others = [nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.RMSNorm(8)]
    layers = [copy.deepcopy(layer) for layer in others for _ in range(int(rng.integers(4)))]
    for batch_norm in (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct, nn.BatchNorm1d):
        layers += [batch_norm(8) for _ in range(int(rng.integers(1, 3)))]
    order = rng.permutation(len(layers))
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 1), layers[i], nn.ReLU()) for i in order]
    shared = blocks[0][1]
    return nn.Sequential(nn.Sequential(*blocks), NormFree(), nn.Sequential(nn.Conv2d(8, 8, 1), shared), layers[0])


def _counted(model, *, modules=None, exact: bool = False, twice: bool = False) -> dict[str, int]:
    from torch import nn

    classes = {
        "BN": nn.modules.batchnorm._BatchNorm,
        "LN": nn.LayerNorm,
        "GN": nn.GroupNorm,
        "IN": nn.modules.instancenorm._InstanceNorm,
        "RMS": nn.RMSNorm,
    }
    if twice:
        modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    found: Counter[str] = Counter()
    for module in modules if modules is not None else model.modules():
        for kind, base in classes.items():
            derived = type(module) in (nn.SyncBatchNorm,) or type(module).__module__ != nn.BatchNorm2d.__module__
            if isinstance(module, base) and not (exact and kind == "BN" and derived):
                found[kind] += 1
    return dict(found)


@checker("ch26.count")
def count(answer, rng) -> None:
    """`answer(model)`: how many normalizations of each kind a PyTorch model has, as {"BN": 3, "GN": 1}."""
    for _ in range(6):
        model = _model(rng)
        expected = _counted(model)
        got = answer(model)
        if not isinstance(got, dict):
            raise Wrong(f"Return a dictionary such as {{'BN': 3}}, got {type(got).__name__}.")
        if unknown := [kind for kind in got if kind not in KINDS]:
            raise Wrong(f"{unknown[0]!r} is no kind; the kinds are {', '.join(KINDS)}.")
        got = {kind: number for kind, number in got.items() if number}
        if got == expected:
            continue
        wrong = {
            "Only what lies at the top was counted: model.modules() goes inside.": _counted(
                model, modules=model.children()
            ),
            "A layer that stands in two places is one layer: it has one set of parameters and statistics.": _counted(
                model, twice=True
            ),
            "Classes that are derived from batch normalization are missing; ask with isinstance.": _counted(
                model, exact=True
            ),
        }
        said = next((words for words, result in wrong.items() if result == got), None)
        raise Wrong(said or f"Expected {expected}, got {got}.")


@checker("ch26.worth")
def worth(answer, rng) -> None:
    """`answer(fewer, cost)`: "yes", "no" or "open", from the interval of saved updates and the price of one."""
    words = ("yes", "no", "open")
    cases = [("open", [0.5, 1.1]), ("open", [0.9, 3]), ("no", [0.8, 0.97]), ("yes", [1.03, 1.2])]  # middles mislead
    for word in rng.choice(words, 11):
        drawn = {
            "yes": sorted(rng.uniform(1.05, 4, 2)),
            "no": sorted(rng.uniform(0.3, 0.98, 2)),
            "open": [rng.uniform(0.4, 0.97), rng.uniform(1.03, 3)],
        }[str(word)]
        cases.append((str(word), drawn))
    for word, seconds in rng.permutation(np.array(cases, dtype=object)):
        cost = float(rng.uniform(1.1, 2))
        fewer = [end * cost for end in seconds]
        got = answer((float(fewer[0]), float(fewer[1])), cost)
        if got not in words:
            raise Wrong(f"Return one of {', '.join(map(repr, words))}, got {got!r}.")
        if got == word:
            continue
        case = f"{fewer[0]:.2f} to {fewer[1]:.2f} times fewer updates, each {cost:.2f} times as long"
        free = "yes" if fewer[0] > 1 else "no" if fewer[1] < 1 else "open"
        hint = "Divide both ends by the price: what is left is the interval of seconds."
        if got == free:
            hint = "That forgets the price: an update with batch normalization takes longer."
        elif got != "open" and word == "open":
            hint = "Where the interval lies across one, it is open; the middle decides nothing."
        raise Wrong(f"{case}: got {got!r}. {hint}")


ANSWERS = ("BN", "SyncBN", "GN", "LN", "frozen", "recalibrate", "live", "joint", "out", "mix", "apart")
CASES = {  # by letter: the answers that will do, and what to say of others
    "a": ({"BN"}, {"SyncBN": "64 images are enough for statistics: nothing to gain for a message in every layer."}),
    "b": (
        {"SyncBN", "GN"},
        {"BN": "Two images a device: the statistics are those of two.", "frozen": "There is nothing to freeze yet."},
    ),
    "c": ({"GN"}, {"SyncBN": "There is one device.", "BN": "One volume a batch, and a deepest map of 8 values."}),
    "d": ({"LN"}, {"BN": "The next word may not be told by later ones, nor by other sentences."}),
    "e": (
        {"frozen"},
        {
            "live": "Two images a batch move the statistics at random.",
            "recalibrate": "The photos are of the same kind: the old statistics are right.",
            "GN": "Then start anew.",
        },
    ),
    "f": (
        {"recalibrate"},
        {"frozen": "These are the statistics of the day.", "live": "Two images are too few for statistics of a batch."},
    ),
    "g": (
        {"mix", "GN"},
        {
            "BN": "The pair shares a batch, and with it a statistic that gives the answer away.",
            "SyncBN": "The rivals come from earlier batches: their statistics are still others.",
        },
    ),
    "h": (
        {"GN"},
        {
            "BN": "An example's gradient holds its companions: it cannot be bounded alone.",
            "frozen": "There is nothing to freeze: it begins from scratch.",
        },
    ),
    "i": (
        {"BN"},
        {"GN": "It has to be computed on the device; batch normalization can be folded away at the end."},
    ),
    "j": (
        {"out"},
        {
            "BN": "Two forward passes, two kinds of actions, one running average of both.",
            "joint": "That goes without a target network, and this one has it.",
        },
    ),
}


@checker("ch26.decisions", value=True)
def decisions(answer, rng) -> None:
    """The ten cases, decided: from each letter to one of `ANSWERS`."""
    if not isinstance(answer, dict):
        raise Wrong(f"Give a dictionary from the letters a to j to answers, got {type(answer).__name__}.")
    if missing := sorted(set(CASES) - set(answer)):
        raise Wrong(f"Case {missing[0]} is not decided.")
    for letter, (right, said) in CASES.items():
        got = answer[letter]
        if got not in ANSWERS:
            raise Wrong(f"Case {letter}: {got!r} is none of {', '.join(map(repr, ANSWERS))}.")
        if got not in right:
            raise Wrong(f"Case {letter}: not {got!r}. {said.get(got, 'Walk through the chart once more.')}")
