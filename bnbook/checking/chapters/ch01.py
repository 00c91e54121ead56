"""Checkers of chapter 1, why normalize."""

from __future__ import annotations

import numpy as np

from ..exercises import Wrong, checker, recognized, same


@checker("ch01.factor")
def factor(answer, rng) -> None:
    """`answer(n_in, var_w, slope)` is the factor of the mean square through a linear layer and leaky ReLU."""
    for k in range(20):
        n_in, var_w = int(rng.integers(5, 2000)), 10 ** rng.uniform(-5, 0)
        slope = (0.0, 1.0, -1.0)[k] if k < 3 else rng.uniform(-1, 1)
        half = (slope**2 + 1) / 2
        same(
            answer(n_in, var_w, slope),
            n_in * var_w * half,
            f"The factor for n_in = {n_in}, Var(w) = {var_w:.3g} and slope {slope:.3g}",
            hint="Half of the mean square comes from positive z, half from negative z, which the slope scales.",
            mistakes={
                "The mean square of what the slope scales takes the slope squared.": n_in * var_w * (slope + 1) / 2,
                "That is the factor of ReLU: negative values come through as well.": n_in * var_w / 2,
                "Only half of the values are positive, and half negative.": n_in * var_w * (slope**2 + 1),
                "Every unit adds up n_in terms.": var_w * half,
                "That is the factor of the root mean square.": np.sqrt(n_in * var_w * half),
                "That is the factor of the variance: the mean counts in a mean square.": n_in
                * var_w
                * (half - (1 - slope) ** 2 / (2 * np.pi)),
            },
        )


@checker("ch01.standardize")
def standardize(answer, rng) -> None:
    """`answer(train, test)` standardizes both tables with the statistics of the first."""
    for _ in range(10):
        features = int(rng.integers(2, 8))
        center, width = rng.normal(size=features) * 20, rng.uniform(0.2, 9, features)
        train = rng.normal(center, width, (int(rng.integers(4, 40)), features))
        test = rng.normal(center + width, 2 * width, (int(rng.integers(2, 40)), features))  # another distribution
        constant = int(rng.integers(features))
        train[:, constant] = center[constant]
        if train[:, constant].std() == 0:  # sums of equal numbers round: 49 times 0.1 has a deviation above zero
            train = np.resize(train, (49, features))
            train[:, constant] = center[constant] = 0.1
        varies = np.arange(features) != constant
        std = np.where(varies, np.sqrt(((train - train.mean(axis=0)) ** 2).mean(axis=0)), 1)
        got = answer(train, test)
        if not (isinstance(got, tuple | list) and len(got) == 2):
            raise Wrong(f"Return two tables, train and test; got {type(got).__name__}.")
        for name, table, result in zip(("train", "test"), (train, test), got, strict=True):
            result = np.asarray(result)
            if result.shape != table.shape:
                raise Wrong(f"The {name} table should have shape {table.shape}, got {result.shape}.")
            mean, expected = train.mean(axis=0), (table - train.mean(axis=0)) / std
            both, m = np.concatenate([train, test]), len(train)
            mistakes = {
                "It is standardized with its own statistics: a network would see the company of a test image.": (
                    table - table.mean(axis=0)
                )
                / (table.std(axis=0) + (table.std(axis=0) == 0)),
                "The standard deviation divides by m, not by m − 1.": expected * np.sqrt((m - 1) / m),
                "It is divided by the variance: take its root.": expected / std,
                "It is centred only.": table - mean,
                "Every feature has a mean and a standard deviation of its own.": (table - train.mean()) / train.std(),
                "The test images have a say in the statistics: take those of the training table.": (
                    table - both.mean(axis=0)
                )
                / both.std(axis=0),
            }
            same(
                result[:, varies],
                expected[:, varies],
                f"The standardized {name} table",
                hint="Both tables take the mean and the standard deviation (divide by m) of the training table.",
                mistakes={words: wrong[:, varies] for words, wrong in mistakes.items()},
            )
            if not np.allclose(result[:, constant], expected[:, constant], rtol=1e-8, atol=1e-8):
                raise Wrong(
                    f"In the {name} table, the column of a feature that never varies in training is not only centred. "
                    "Its computed deviation can be a rounding error instead of zero: compare the values themselves."
                )


@checker("ch01.weight_std")
def weight_std(answer, rng) -> None:
    """`answer(n, activation)` keeps the size of a signal through 30 layers of n units."""
    depth, draws = 30, 8
    functions = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}
    for name in rng.permutation(list(functions)):
        for n in rng.integers(200, 500, 2):
            std = float(answer(int(n), str(name)))
            if not (np.isfinite(std) and std > 0):
                raise Wrong(f"For n = {n} and {str(name)!r} the answer is {std}, expected a positive number.")
            logs = []  # of the ratio of sizes: narrow layers fluctuate, the mean over some draws does not
            for _ in range(draws):
                x, sizes = rng.normal(size=(4, n)), []
                for _ in range(depth):
                    x = functions[str(name)](x @ rng.normal(0, std, (n, n)).T)
                    sizes.append(np.sqrt(np.mean(x**2)))
                logs.append(np.log(max(sizes[-1], 1e-300) / max(sizes[0], 1e-300)))
            ratio = np.exp(np.mean(logs))
            if not 0.5 < ratio < 2:
                hint = f"Try {'larger' if ratio < 1 else 'smaller'} weights."
                mistakes = {
                    "That is a variance.": min((gain / n for gain in (1, 2, 25 / 9)), key=lambda v: abs(v - std))
                }
                if name == "relu":
                    mistakes["That keeps the outputs of the linear part; ReLU loses half of their square."] = (
                        1 / np.sqrt(n)
                    )
                hint = recognized(std, mistakes, hint)
                raise Wrong(f"For n = {n} and {str(name)!r} layer 30 has {ratio:.2g} times the size of layer 1. {hint}")


def xray(kind: str, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """The X-ray of an invented network of that kind: sizes of activations and of gradients, first layer first."""
    depth = int(rng.integers(6, 40))
    layers = np.arange(depth)
    level = (1.0, 10 ** rng.uniform(-7, -3))  # gradients are small numbers in any network: that is not vanishing

    def travel(orders: float) -> np.ndarray:
        """From 1 over `orders` powers of ten, in the direction of travel, with some noise between the ends."""
        noise = rng.normal(0, 0.05, depth)
        noise[[0, -1]] = 0
        return 10 ** (orders * layers / (depth - 1) + noise)

    mild = [rng.uniform(-2, 2) for _ in range(2)]
    if kind in ("vanishing", "exploding"):
        orders = rng.uniform(4, 12) * (-1 if kind == "vanishing" else 1)
        for which in ((0,), (1,), (0, 1))[rng.integers(3)]:
            mild[which] = orders
    activations, gradients = level[0] * travel(mild[0]), level[1] * travel(mild[1])[::-1]
    if kind == "dead":
        first = int(rng.integers(1, depth))  # from here on every image gives the same
        activations[first:], gradients[: first + 1] = 0, 0
    elif kind == "exploding" and rng.random() < 0.3:
        gradients[0] = rng.choice([np.inf, np.nan])
    return activations.tolist(), gradients.tolist()


@checker("ch01.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(activations, gradients)` names what an X-ray shows."""
    kinds = ("dead", "exploding", "vanishing", "healthy")
    for kind in rng.permutation(kinds * 12):
        activations, gradients = xray(str(kind), rng)
        got = answer(activations, gradients)
        if not isinstance(got, str) or got not in kinds:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, kinds))}.")
        if got != kind:
            raise Wrong(
                f"An X-ray that is {str(kind)!r} was called {got!r}: activations from {activations[0]:.1g} (first) "
                f"to {activations[-1]:.1g} (last), gradients from {gradients[-1]:.1g} (last) to {gradients[0]:.1g} "
                "(first). Look at ratios, not at sizes, and remember which way gradients travel."
            )
