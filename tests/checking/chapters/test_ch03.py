"""The checkers of chapter 3 accept a right answer, reject wrong ones and know a stub when they see one."""

from __future__ import annotations

import numpy as np

from bnbook.checking.chapters.ch03 import layers

# The solutions


def without_start(running, start, momentum, steps):
    left = (1 - momentum) ** steps
    return (running - left * start) / (1 - left)


def update(layer, x, ddof=1, reverse=False, count=True, axes=None, in_place=True, share=None):
    axes = (0, *range(2, x.ndim)) if axes is None else axes
    layer.num_batches_tracked += int(count)
    momentum = layer.momentum
    if momentum is None:
        momentum = 1 / max(int(layer.num_batches_tracked), 1) if share is None else share
    elif reverse:
        momentum = 1 - momentum
    mean = layer.running_mean + momentum * (x.mean(axes) - layer.running_mean)
    var = layer.running_var + momentum * (x.var(axes, ddof=ddof) - layer.running_var)
    if in_place:
        layer.running_mean[...], layer.running_var[...] = mean, var
    else:
        layer.running_mean, layer.running_var = mean, var


def pool(sizes, means, variances):
    share = sizes / sizes.sum()
    mean = share @ means
    return mean, share @ (variances + (means - mean) ** 2)


def order(values, size):
    return np.argsort(values)


def diagnose(layer):
    x = np.array([2.0, 4.0, 5.0, 6.0, 8.0])[:, None] * [1.0, 1.0, 1.0]
    layer(x, True)
    ruler = np.array([[0.0] * 3, [1.0] * 3])
    first, second = layer(ruler, False), layer(ruler, False)
    if not np.allclose(first, second):
        return "moves in evaluation"
    var = 1 / (first[1, 0] - first[0, 0]) ** 2
    mean = -first[0, 0] * np.sqrt(var)
    if np.isclose(mean, 0):
        return "never moves"
    if np.isclose(mean, 4.5):
        return "reversed"
    return "biased" if np.isclose(var, 1.3, atol=1e-3) else "correct"


RIGHT = {
    "ch03.without_start": without_start,
    "ch03.update": update,
    "ch03.pool": pool,
    "ch03.order": order,
    "ch03.diagnose": diagnose,
}

WRONG = {
    "ch03.without_start": {
        "divides without subtracting": lambda r, s, a, k: r / (1 - (1 - a) ** k),
        "subtracts without dividing": lambda r, s, a, k: r - s * (1 - a) ** k,
        "the other momentum": lambda r, s, a, k: (r - a**k * s) / (1 - a**k),
        "one step too few": lambda r, s, a, k: (r - s * (1 - a) ** (k - 1)) / (1 - (1 - a) ** (k - 1) + 1e-12),
        "nothing": lambda r, s, a, k: r,
    },
    "ch03.update": {
        "biased": lambda layer, x: update(layer, x, ddof=0),
        "momentum reversed": lambda layer, x: update(layer, x, reverse=True),
        "no count": lambda layer, x: update(layer, x, count=False),
        "new arrays": lambda layer, x: update(layer, x, in_place=False),
        "None as 0.1": lambda layer, x: update(layer, x, share=0.1),
        "only the batch axis": lambda layer, x: update(layer, x.mean(tuple(range(2, x.ndim)))),
        "nothing": lambda layer, x: None,
    },
    "ch03.pool": {
        "plain mean of the variances": lambda n, mu, v: (n @ mu / n.sum(), v.mean()),
        "inside only": lambda n, mu, v: (n @ mu / n.sum(), n @ v / n.sum()),
        "sizes ignored": lambda n, mu, v: (mu.mean(), v.mean() + mu.var()),
        "unbiased": lambda n, mu, v: (pool(n, mu, v)[0], pool(n, mu, v)[1] * n.sum() / (n.sum() - 1)),
        "Bessel's factor": lambda n, mu, v: (n @ mu / n.sum(), (n * v).sum() / (n.sum() - len(n))),
        "one number": lambda n, mu, v: n @ mu / n.sum(),
    },
    "ch03.order": {
        "as they are": lambda values, size: np.arange(len(values)),
        "the sorted values": lambda values, size: np.sort(values),
        "largest with smallest": lambda values, size: np.argsort(np.abs(values - values.mean())),
        "one index for all": lambda values, size: np.zeros(len(values), int),
        "interleaved": lambda values, size: np.argsort(values).reshape(size, -1).T.ravel(),
    },
    "ch03.diagnose": {
        "always correct": lambda layer: "correct",
        "by chance": lambda layer: np.random.default_rng().choice(list(layers())),
        "another word": lambda layer: "broken",
        "blind to the variance": lambda layer: "correct" if (d := diagnose(layer)) == "biased" else d,
        "blind to evaluation": lambda layer: "correct" if (d := diagnose(layer)) == "moves in evaluation" else d,
    },
}
