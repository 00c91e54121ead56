"""The checkers of chapter 19 accept a right answer, reject wrong ones and know a stub when they see one."""

from __future__ import annotations

import numpy as np

# The solutions


def momentum_of_parts(momentum, parts):
    return 1 - (1 - momentum) ** (1 / parts)


def reveal(z, y, weight, bias, m):
    root = weight * (z[0] - z[1]) / (y[0] - y[1])
    mean = z[0] - root * (y[0] - bias) / weight
    return (m * mean - z.sum(axis=0)) / (m - 2)


def clipped(x, running_mean, running_std, r_max, d_max, eps):
    mean, std = x.mean(axis=0), np.sqrt(x.var(axis=0) + eps)
    r = np.clip(std / running_std, 1 / r_max, r_max)
    return (x - mean) / std, r, np.clip((mean - running_mean) / running_std, -d_max, d_max)


def renorm(x, running_mean, running_std, weight, bias, r_max, d_max, eps):
    x_hat, r, d = clipped(x, running_mean, running_std, r_max, d_max, eps)
    return weight * (x_hat * r + d) + bias


def moving(x, running_mean, *more):
    """Right, but the running mean follows."""
    y = renorm(x, running_mean, *more)
    running_mean += 0.1 * (x.mean(axis=0) - running_mean)
    return y


def evaluation(x, running_mean, running_std, weight, bias, r_max, d_max, eps):
    return weight * (x - running_mean) / running_std + bias


def generous(m):
    x = np.zeros(m)
    x[:2] = 1, 0.01
    return x


def diagnose(layer):
    x = np.random.default_rng(0).normal(3, 2, size=(16, 4))
    y = layer(x)

    def moves(row):
        other = x.copy()
        other[row] += [1e4, -2e4, 3e4, -1e4]
        return not np.allclose(layer(other)[0], y[0])

    if moves(15):
        return "batch" if np.allclose(y.mean(axis=0), 0) else "renorm"
    if moves(1):
        return "ghost"
    return "layer" if np.allclose(y.mean(axis=1), 0) else "frozen"


RIGHT = {
    "ch19.momentum_of_parts": momentum_of_parts,
    "ch19.reveal": reveal,
    "ch19.renorm": renorm,
    "ch19.generous": generous,
    "ch19.diagnose": diagnose,
}

WRONG = {
    "ch19.momentum_of_parts": {
        "a share each": lambda a, k: a / k,
        "a root of it": lambda a, k: a ** (1 / k),
        "of the old value": lambda a, k: (1 - a) ** (1 / k),
        "what the parts do": lambda a, k: 1 - (1 - a) ** k,
        "the same": lambda a, k: a,
    },
    "ch19.reveal": {
        "of all": lambda z, y, w, b, m: (m - 2) / m * reveal(z, y, w, b, m) + z.sum(axis=0) / m,
        "the sum": lambda z, y, w, b, m: (m - 2) * reveal(z, y, w, b, m),
        "weight and bias forgotten": lambda z, y, w, b, m: reveal(z, y, np.ones_like(w), np.zeros_like(b), m),
        "bias forgotten": lambda z, y, w, b, m: reveal(z, y, w, np.zeros_like(b), m),
        "of three": lambda z, y, w, b, m: reveal(z, y, w, b, 3),
        "one's own": lambda z, y, w, b, m: z.mean(axis=0),
    },
    "ch19.renorm": {
        "batch normalization": lambda x, mu, s, w, b, r, d, eps: renorm(x, mu, s, w, b, 1, 0, eps),
        "evaluation": evaluation,
        "moves the statistics": moving,
        "without a lower limit of r": lambda x, mu, s, w, b, r, d, eps: (
            w * (clipped(x, mu, s, 1e9, d, eps)[0] * np.minimum(np.sqrt(x.var(axis=0) + eps) / s, r))
            + w * clipped(x, mu, s, r, d, eps)[2]
            + b
        ),
        "without a limit of d": lambda x, mu, s, w, b, r, d, eps: renorm(x, mu, s, w, b, r, 1e9, eps),
        "without a limit of r": lambda x, mu, s, w, b, r, d, eps: renorm(x, mu, s, w, b, 1e9, d, eps),
        "without eps": lambda x, mu, s, w, b, r, d, eps: renorm(x, mu, s, w, b, r, d, 0),
        "no weight": lambda x, mu, s, w, b, r, d, eps: renorm(x, mu, s, 1, b, r, d, eps),
    },
    "ch19.generous": {
        "one outlier": lambda m: np.eye(m)[0],
        "in the middle": lambda m: np.arange(m) - (m - 1) / 2,
        "random": lambda m: np.random.default_rng(0).normal(size=m),
        "not far enough": lambda m: generous(m) + 0.3 * (np.arange(m) == 1),
        "the last one": lambda m: generous(m)[::-1],
        "all equal": np.ones,
        "too few": lambda m: generous(m)[:-1],
    },
    "ch19.diagnose": {
        "always batch": lambda layer: "batch",
        "another word": lambda layer: "group",
        "blind to ghosts": lambda layer: "frozen" if (d := diagnose(layer)) == "ghost" else d,
        "blind to the running statistics": lambda layer: "batch" if (d := diagnose(layer)) == "renorm" else d,
        "blind to rows": lambda layer: "frozen" if (d := diagnose(layer)) == "layer" else d,
    },
}
