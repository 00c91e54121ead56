"""The checkers of chapter 26 accept a right answer, reject wrong ones and know a stub when they see one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bnbook.checking import check

# The solutions


def values(n, size, layers):
    found = []
    for kernel, stride, padding in layers:
        size = (size + 2 * padding - kernel) // stride + 1
        found.append(n * size * size)
    return found


def kinds():
    from torch import nn

    return {
        "BN": nn.modules.batchnorm._BatchNorm,
        "LN": nn.LayerNorm,
        "GN": nn.GroupNorm,
        "IN": nn.modules.instancenorm._InstanceNorm,
        "RMS": nn.RMSNorm,
    }


def count(model):
    return Counter(kind for m in model.modules() for kind, base in kinds().items() if isinstance(m, base))


def top(model):
    return Counter(kind for m in model.children() for kind, base in kinds().items() if isinstance(m, base))


def twice(model):
    modules = [m for _, m in model.named_modules(remove_duplicate=False)]
    return Counter(kind for m in modules for kind, base in kinds().items() if isinstance(m, base))


def by_class(model):
    from torch import nn

    names = {nn.BatchNorm1d: "BN", nn.BatchNorm2d: "BN", nn.LayerNorm: "LN", nn.GroupNorm: "GN"}
    names |= {nn.InstanceNorm2d: "IN", nn.RMSNorm: "RMS"}
    return Counter(names[type(m)] for m in model.modules() if type(m) in names)


def by_name(model):
    return {"BN": sum("Norm" in type(m).__name__ for m in model.modules())}


def worth(fewer, cost):
    low, high = (end / cost for end in fewer)
    return "yes" if low > 1 else "no" if high < 1 else "open"


def _rounded_up(n, size, layers):
    found = []
    for kernel, stride, padding in layers:
        size = -(-size // stride) if padding else (size - kernel) // stride + 1
        found.append(n * size**2)
    return found


DECISIONS = {"a": "BN", "b": "SyncBN", "c": "GN", "d": "LN", "e": "frozen", "f": "recalibrate", "g": "mix", "h": "GN",
             "i": "BN", "j": "out"}  # fmt: skip

RIGHT = {
    "ch26.values": values,
    "ch26.count": [count, lambda model: {"BN": 0, "RMS": 0} | count(model)],
    "ch26.worth": worth,
    "ch26.decisions": [DECISIONS, DECISIONS | {"b": "GN", "g": "GN"}],
}

WRONG = {
    "ch26.values": {
        "no images": lambda n, size, layers: [m / n for m in values(n, size, layers)],
        "one side": lambda n, size, layers: [(m * n) ** 0.5 for m in values(n, size, layers)],
        "what enters": lambda n, size, layers: [n * size**2, *values(n, size, layers)[:-1]],
        "not rounded": lambda n, size, layers: [n * size**2 / 4 ** (i + 1) for i in range(len(layers))],
        "rounded up where padded": lambda n, size, layers: _rounded_up(n, size, layers),
        "the last alone": lambda n, size, layers: values(n, size, layers)[-1:],
    },
    "ch26.count": {
        "at the top": top,
        "twice": twice,
        "by class": by_class,
        "by name": by_name,
        "a number": lambda model: 3,
        "a class": lambda model: {type(m): 1 for m in model.modules()},
    },
    "ch26.worth": {
        "free": lambda fewer, cost: worth(fewer, 1),
        "half the middle": lambda fewer, cost: "yes" if fewer[0] > cost else "no" if sum(fewer) / 2 < cost else "open",
        "the geometric middle": lambda fewer, cost: (
            "yes" if (fewer[0] * fewer[1]) ** 0.5 > 1.5 * cost else "no" if fewer[1] < cost else "open"
        ),
        "the middle": lambda fewer, cost: "yes" if sum(fewer) / 2 > cost else "no",
        "multiplied": lambda fewer, cost: worth(fewer, 1 / cost),
        "the best case": lambda fewer, cost: "yes" if fewer[1] > cost else "no",
        "always open": lambda fewer, cost: "open",
        "a number": lambda fewer, cost: fewer[0] / cost,
    },
    "ch26.decisions": {
        "always": dict.fromkeys(DECISIONS, "BN"),
        "the day's statistics": DECISIONS | {"f": "frozen"},
        "a target network": DECISIONS | {"j": "joint"},
        "synchronized pairs": DECISIONS | {"g": "SyncBN"},
        "a word of its own": DECISIONS | {"d": "layer norm"},
        "one missing": {letter: word for letter, word in DECISIONS.items() if letter != "j"},
        "a list": list(DECISIONS.values()),
        **{f"not {letter}": DECISIONS | {letter: "apart"} for letter in DECISIONS},
    },
}


@pytest.mark.parametrize(
    ("exercise", "wrong", "said"),
    [
        ("ch26.values", "no images", "without the images"),
        ("ch26.values", "what enters", "what enters the layers"),
        ("ch26.count", "at the top", "goes inside"),
        ("ch26.count", "twice", "one layer"),
        ("ch26.count", "by class", "isinstance"),
        ("ch26.worth", "free", "forgets the price"),
        ("ch26.decisions", "one missing", "Case j is not decided"),
        ("ch26.decisions", "the day's statistics", "statistics of the day"),
        ("ch26.decisions", "a target network", "without a target network"),
        ("ch26.decisions", "synchronized pairs", "from earlier batches"),
    ],
)
def test_mistakes_are_named(exercise, wrong, said):
    if exercise == "ch26.count":
        pytest.importorskip("torch")
    assert said in check(exercise, WRONG[exercise][wrong]).message


def test_every_case_has_an_answer_of_the_list():
    from bnbook.checking.chapters import ch26

    for right, said in ch26.CASES.values():
        assert right <= set(ch26.ANSWERS) and set(said) <= set(ch26.ANSWERS) - right


def test_the_answers_are_those_of_the_chart():
    import ast

    import nbformat

    from bnbook.checking.chapters import ch26

    root = Path(__file__).parents[3]
    cells = nbformat.read(root / "book/26_today.ipynb", as_version=4).cells
    (source,) = (cell.source for cell in cells if "\nanswers = {" in cell.source)
    (chart,) = (
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "answers"
    )
    assert {key.value for key in chart.keys} == set(ch26.ANSWERS)
