"""Checkers of chapter 3, training and inference."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from ... import textbook
from ..exercises import Wrong, checker, same


@checker("ch03.without_start")
def without_start(answer, rng) -> None:
    """`answer(running, start, momentum, steps)` is the running mean with the share of its initial value taken out."""
    for case in range(20):
        # Few steps and a small momentum: the start still has a weight that shows in the message.
        momentum, start, steps = (
            rng.uniform(0.02, 0.3),
            rng.choice([-1, 1]) * rng.uniform(2, 8),
            int(rng.integers(1, 12)) if case else 2,
        )
        batches = rng.normal(rng.normal() * 3, 1, steps)
        weights = momentum * (1 - momentum) ** np.arange(steps)[::-1]
        left = (1 - momentum) ** steps
        running = start * left + weights @ batches
        same(
            answer(running, start, momentum, steps),
            weights @ batches / weights.sum(),
            f"The running mean without its start, for α = {momentum:.3g} after {steps} steps,",
            tol=1e-6,
            hint="Subtract the start times its weight; then let the weights of the batches add up to one again.",
            mistakes={
                "The weights of the batches do not yet add up to one.": running - start * left,
                "That is the running mean as it was.": running,
                "The start is still in it.": running / (1 - left),
                "α is the weight of the new value, not of the old one.": (running - start * momentum**steps)
                / (1 - momentum**steps),
                "That is one step too many.": (running - start * left * (1 - momentum)) / (1 - left * (1 - momentum)),
            },
        )


@checker("ch03.update")
def update(answer, rng) -> None:
    """`answer(layer, x)` does to the running statistics of a layer what its training forward does."""
    for shape in ((7, 3), (2, 4), (5, 2, 4), (4, 3, 5, 6)):
        channels = shape[1]
        for momentum in (0.1, float(rng.uniform(0.2, 0.9)), None):
            batches = [rng.normal(rng.normal() * 3, rng.uniform(0.5, 3), shape) for _ in range(4)]
            mean, var = rng.normal(size=channels), rng.uniform(0.5, 2, channels)
            if momentum is None:
                mean, var = np.zeros(channels), np.ones(channels)
            layer = SimpleNamespace(
                momentum=momentum,
                running_mean=mean.copy(),
                running_var=var.copy(),
                num_batches_tracked=np.zeros((), np.int64),
            )
            held = layer.running_mean, layer.running_var
            for k, x in enumerate(batches, start=1):
                answer(layer, x)
                share = 1 / k if momentum is None else momentum
                before, (mu, sigma2) = (mean, var), textbook.statistics(x)
                mean, var = textbook.updated(*before, mu, sigma2, x.size // channels, share)
                shown = "None" if momentum is None else f"{momentum:.3g}"
                where = f"after batch {k} of shape {shape} with momentum={shown}"
                same(
                    layer.running_mean,
                    mean,
                    f"running_mean {where}",
                    hint="With momentum None every batch has the same weight." if momentum is None else "",
                    mistakes={
                        "It has not moved: write into the array of the layer.": before[0],
                        "momentum is the weight of the new value.": share * before[0] + (1 - share) * mu,
                        "The count of batches is one off.": before[0] + (mu - before[0]) / (k + 1),
                        "With momentum None the weight is not a fixed one.": before[0] + 0.1 * (mu - before[0]),
                    },
                )
                same(
                    layer.running_var,
                    var,
                    f"running_var {where}",
                    hint="It moves as running_mean does.",
                    mistakes={
                        "It has not moved: write into the array of the layer.": before[1],
                        "The variance that is stored divides by m − 1.": before[1] + share * (sigma2 - before[1]),
                        "The variance is stored, not its root.": before[1]
                        + share * (np.std(x, axis=textbook.channel_axes(x), ddof=1) - before[1]),
                    },
                )
                if int(layer.num_batches_tracked) != k:
                    raise Wrong(f"num_batches_tracked is {int(layer.num_batches_tracked)} {where}, expected {k}.")
            if held[0] is not layer.running_mean or held[1] is not layer.running_var:
                raise Wrong(
                    "running_mean and running_var are new arrays; write into those of the layer, which others hold too."
                )


@checker("ch03.pool")
def pool(answer, rng) -> None:
    """`answer(sizes, means, variances)` is (mean, variance) of all values of all batches together."""
    for _ in range(10):
        values = rng.normal(size=60)
        if rng.random() < 0.5:
            values.sort()  # batches that are anything but alike
        batches = np.split(values, np.sort(rng.choice(np.arange(1, 60), 5, replace=False)))
        sizes = np.array([len(b) for b in batches])
        means, variances = np.array([b.mean() for b in batches]), np.array([b.var() for b in batches])
        got = answer(sizes, means, variances)
        if not isinstance(got, tuple | list | np.ndarray) or len(got) != 2:
            raise Wrong("Return two numbers: the mean and the variance of all values.")
        what = f"of batches of {', '.join(map(str, sizes))} values"
        inside, between = sizes @ variances / 60, sizes @ (means - values.mean()) ** 2 / 60
        same(
            got[0],
            values.mean(),
            f"The mean {what}",
            mistakes={"A larger batch has a larger say.": means.mean()},
        )
        same(
            got[1],
            values.var(),
            f"The variance {what}",
            hint="Inside the batches and between their means; both weighted by the sizes.",
            mistakes={
                "That is inside the batches; their means differ as well.": inside,
                "That is between the means; the values of a batch differ as well.": between,
                "A larger batch has a larger say.": variances.mean() + means.var(),
                "A larger batch has a larger say, and the means differ.": variances.mean(),
                "It divides by the number of values, not by one less.": (inside + between) * 60 / 59,
            },
        )


@checker("ch03.order")
def order(answer, rng) -> None:
    """`answer(values, size)` orders values so that the average unbiased variance of batches is smallest."""

    def average(values: np.ndarray, size: int) -> float:
        return values.reshape(-1, size).var(axis=1, ddof=1).mean()

    for size in (2, 3, *rng.integers(4, 9, 3)):
        size = int(size)
        values = rng.normal(size=size * int(rng.integers(3, 12)))
        got = np.asarray(answer(values, size))
        if got.shape == values.shape and np.array_equal(np.sort(got), np.sort(values)):
            raise Wrong("These are the values: return their indices.")
        if got.shape != values.shape or not np.array_equal(np.sort(got), np.arange(len(values))):
            raise Wrong(
                f"For {len(values)} values the answer should be the indices 0 to {len(values) - 1} in some order."
            )
        found, best = average(values[got], size), average(np.sort(values), size)
        if not found <= best * (1 + 1e-9):
            raise Wrong(
                f"For {len(values)} values in batches of {size} your order gives {found:.4g}; "
                f"{best:.4g} can be reached. What is not inside the batches lies between them; their sum is fixed."
            )


def layers() -> dict[str, Callable[[], Callable]]:
    """Makers of fresh layers `layer(x, training)` for x (N, 3): the one that is right and four that are not."""

    def maker(momentum=0.1, ddof=1, in_training=True, in_evaluation=False):
        def make():
            mean, var = np.zeros(3), np.ones(3)

            def layer(x, training):
                mu, sigma2 = (x.mean(axis=0), x.var(axis=0)) if training else (mean.copy(), var.copy())
                if in_training if training else in_evaluation:
                    mean[...] = (1 - momentum) * mean + momentum * x.mean(axis=0)
                    var[...] = (1 - momentum) * var + momentum * x.var(axis=0, ddof=ddof)
                return (x - mu) / np.sqrt(sigma2 + 1e-5)

            return layer

        return make

    return {
        "correct": maker(),
        "reversed": maker(momentum=0.9),
        "biased": maker(ddof=0),
        "moves in evaluation": maker(in_evaluation=True),
        "never moves": maker(in_training=False),
    }


@checker("ch03.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(layer)` names what a fresh layer `layer(x, training)` does with its running statistics."""
    known = layers()
    for name in rng.permutation(list(known) * 3):
        got = answer(known[str(name)]())
        if got not in known:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, known))}.")
        if got != name:
            raise Wrong(f"A layer that is {str(name)!r} was called {got!r}.")
