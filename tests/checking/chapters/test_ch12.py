"""The checkers of chapter 12 accept the solutions and refuse what only looks like one."""

import numpy as np

from bnbook.checking.chapters.ch12 import black_box


def rest(lr, decay, g):
    return (lr**2 * g**2 / (1 - (1 - lr * decay) ** 2)) ** 0.25


def rising(lr, decay, t):
    return lr / (1 - lr * decay) ** (2 * t + 1)


def normalize_once(weights, x, *, relu=True, center=False, first_only=False, rows=False):
    scaled, h = [], x
    for weight in weights:
        z = h @ weight.T
        size = np.sqrt((z**2).mean(axis=0)[:, None] if rows else (z**2).mean()) if not center else z.std()
        size = 1 if first_only and scaled else size
        scaled.append(weight / size)
        h = h @ scaled[-1].T
        h = np.maximum(h, 0) if relu else h
    return scaled


def unscaled_inputs(weights, x):
    """The signal that follows is that of the old weights."""
    scaled = []
    for weight in weights:
        z = x @ weight.T
        scaled.append(weight / np.sqrt((z**2).mean()))
        x = np.maximum(z, 0)
    return scaled


def in_place(weights, x):
    for weight, new in zip(weights, normalize_once(weights, x), strict=True):
        weight[...] = new
    return weights


def changed(**entries):
    return lambda setting: setting | entries


def sees(loss, parameters, *, factor=3.0, nothing=True, direction=True):
    rng = np.random.default_rng(0)
    before, found = loss(parameters), {}
    for name, value in parameters.items():
        longer = loss(parameters | {name: factor * value})
        another = loss(parameters | {name: rng.normal(size=value.shape)})
        if nothing and np.isclose(another, before, rtol=1e-6):
            found[name] = "nothing"
        else:
            found[name] = "direction" if direction and np.isclose(longer, before, rtol=1e-6) else "all"
    return found


def by_shape(loss, parameters):
    return {name: "direction" if value.ndim == 2 else "all" for name, value in parameters.items()}


RIGHT = {
    "ch12.rest": rest,
    "ch12.rising": rising,
    "ch12.normalize_once": normalize_once,
    "ch12.overturn": changed(optimizer="Adam"),
    "ch12.sees": sees,
}
WRONG = {
    "ch12.rest": {
        "the approximation": lambda lr, decay, g: (lr * g**2 / (2 * decay)) ** 0.25,
        "squared": lambda lr, decay, g: rest(lr, decay, g) ** 2,
        "the fourth power": lambda lr, decay, g: rest(lr, decay, g) ** 4,
        "decay not squared": lambda lr, decay, g: (lr * g**2 / decay) ** 0.25,
        "nothing": lambda lr, decay, g: None,
    },
    "ch12.rising": {
        "constant": lambda lr, decay, t: lr,
        "one power": lambda lr, decay, t: lr / (1 - lr * decay) ** t,
        "even power": lambda lr, decay, t: lr / (1 - lr * decay) ** (2 * t),
        "counted from one": lambda lr, decay, t: rising(lr, decay, t + 1),
        "falling": lambda lr, decay, t: lr * (1 - lr * decay) ** (2 * t + 1),
        "exponential": lambda lr, decay, t: lr * np.exp((2 * t + 1) * lr * decay),
        "an array": lambda lr, decay, t: np.full(6, rising(lr, decay, t)),
    },
    "ch12.normalize_once": {
        "no ReLU": lambda weights, x: normalize_once(weights, x, relu=False),
        "centred": lambda weights, x: normalize_once(weights, x, center=True),
        "the first alone": lambda weights, x: normalize_once(weights, x, first_only=True),
        "row by row": lambda weights, x: normalize_once(weights, x, rows=True),
        "the old signal": unscaled_inputs,
        "He": lambda weights, x: [w / w.std() * np.sqrt(2 / w.shape[1]) for w in weights],
        "in place": in_place,
        "one matrix": lambda weights, x: normalize_once(weights, x)[0],
    },
    "ch12.overturn": {
        "as it was": changed(),
        "another rate": changed(lr=1.0),
        "two changes": changed(optimizer="Adam", lr=0.003),
        "with BN": changed(norm="batch"),
        "He's scale": changed(scale=1.0),
        "PyTorch's start": changed(init="default"),
        "not a setting": lambda setting: "Adam",
        "an entry lost": lambda setting: {"optimizer": "Adam"},
    },
    "ch12.sees": {
        "by the shape": by_shape,
        "always all": lambda loss, parameters: dict.fromkeys(parameters, "all"),
        "biases have a direction": lambda loss, parameters: sees(loss, parameters, nothing=False),
        "no direction": lambda loss, parameters: sees(loss, parameters, direction=False),
        "a negative factor": lambda loss, parameters: sees(loss, parameters, factor=-1.0),
        "a tiny factor": lambda loss, parameters: sees(loss, parameters, factor=1.0 + 1e-9),
        "names lost": lambda loss, parameters: {},
    },
}


def test_black_boxes_hold_all_three_kinds():
    for seed in range(10):
        _, parameters, truth = black_box(np.random.default_rng(seed))
        assert set(truth.values()) == {"nothing", "direction", "all"} and parameters.keys() == truth.keys()
