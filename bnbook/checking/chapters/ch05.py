"""Checkers of chapter 5, the layer from scratch."""

from __future__ import annotations

import copy
import math

import numpy as np

from ... import textbook
from ...textbook import channel_axes, per_channel
from ..compare import TOLERANCES, max_difference
from ..exercises import Wrong, checker, same

Array = np.ndarray

SHAPES = ((7, 3), (5, 2, 4), (4, 3, 5, 6), (2, 3, 4, 2, 5))
STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _batch(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values with another mean and another spread in every channel."""
    x = rng.normal(size=shape)
    return x * per_channel(rng.uniform(0.5, 3, shape[1]), x) + per_channel(rng.normal(0, 2, shape[1]), x)


def _parts(got: object, count: int, names: str) -> tuple:
    if not isinstance(got, tuple | list | np.ndarray) or getattr(got, "ndim", 1) == 0:
        raise Wrong(f"Return {count} things, {names}, got {type(got).__name__}.")
    if len(got) != count:
        raise Wrong(f"Return {count} things, {names}, got {len(got)}.")
    return tuple(got)


# --- the staircase ---------------------------------------------------------------------------------------------------


@checker("ch05.statistics")
def statistics(answer, rng) -> None:
    """`answer(x)` is (mean, var) of every channel, both (C,)."""
    for shape in SHAPES:
        x = _batch(rng, shape)
        got, (mean, var) = _parts(answer(x), 2, "mean and var"), textbook.statistics(x)
        m, example = x.size // shape[1], tuple(range(1, x.ndim))
        mistakes = {
            "That is the other of the two.": (var, mean),
            "There is one for every position: average over the positions as well.": (x.mean(axis=0), x.var(axis=0)),
            "There is one for every example: average over the batch as well.": (x.mean(example), x.var(example)),
            "That is over all channels: each has its own.": (x.mean(), x.var()),
        }
        same(
            got[0],
            mean,
            f"The mean for x of shape {shape}",
            hint="Average over all axes but the second.",
            mistakes={words: wrong[0] for words, wrong in mistakes.items()},
        )
        same(
            got[1],
            var,
            f"The variance for x of shape {shape}",
            hint="Average over the axes over which the mean was taken.",
            mistakes={words: wrong[1] for words, wrong in mistakes.items()}
            | {
                "Divide by m, not by m − 1.": var * m / (m - 1),
                "That is the standard deviation.": np.sqrt(var),
                "That is the mean of the squares: subtract the mean first.": var + mean**2,
            },
        )


@checker("ch05.forward")
def forward(answer, rng) -> None:
    """`answer(x, mean, var, weight, bias, eps)` is (y, x_hat, inv_std)."""
    for shape in SHAPES:
        x, (mean, bias) = _batch(rng, shape), rng.normal(size=(2, shape[1]))
        var, weight = rng.uniform(0.2, 3, shape[1]), rng.normal(size=shape[1])
        eps = 10 ** rng.uniform(-4, 0)
        right_y, x_hat, inv_std = textbook.forward(x, mean, var, weight, bias, eps)
        y, got_x_hat, got_inv_std = _parts(answer(x, mean, var, weight, bias, eps), 3, "y, x_hat and inv_std")
        for_x = f"for x of shape {shape} and ε = {eps:.3g}"
        same(
            np.ravel(got_inv_std),
            inv_std,
            f"inv_std {for_x}",
            hint="It is made from the variance that you are given, and from ε.",
            mistakes={
                "ε stands inside the root.": 1 / (np.sqrt(var) + eps),
                "ε is missing.": 1 / np.sqrt(var),
                "The root is missing.": inv_std**2,
                "That is the standard deviation: one over it is asked for.": 1 / inv_std,
                "Use the variance you are given, not that of the batch.": 1 / np.sqrt(x.var(channel_axes(x)) + eps),
            },
        )
        same(
            got_x_hat,
            x_hat,
            f"x_hat {for_x}",
            mistakes={
                "Use the mean and the variance you are given, not those of the batch.": textbook.forward(
                    x, *textbook.statistics(x), weight, bias, eps
                )[1],
                "The mean is not subtracted.": x * per_channel(inv_std, x),
                "It is not divided by the deviation.": x - per_channel(mean, x),
                "That is y already.": right_y,
            },
        )
        same(
            y,
            right_y,
            f"y {for_x}",
            mistakes={
                "β is missing.": right_y - per_channel(bias, x),
                "γ is missing.": x_hat + per_channel(bias, x),
                "γ and β are exchanged.": per_channel(bias, x) * x_hat + per_channel(weight, x),
                "β comes after γ.": per_channel(weight, x) * (x_hat + per_channel(bias, x)),
            },
        )


@checker("ch05.update")
def update(answer, rng) -> None:
    """`answer(running_mean, running_var, mean, var, m, momentum, count)` is the pair of new running statistics."""
    for _ in range(20):
        running_mean, mean = rng.normal(size=(2, 4))
        running_var, var = rng.uniform(0.2, 3, (2, 4))
        m, count = int(rng.integers(2, 30)), int(rng.integers(0, 20))
        momentum = None if rng.random() < 0.4 else float(rng.uniform(0.05, 0.4))
        a = 1 / (count + 1) if momentum is None else momentum
        got_mean, got_var = _parts(
            answer(running_mean, running_var, mean, var, m, momentum, count), 2, "running_mean and running_var"
        )
        case = f"for m = {m}, momentum = {momentum and round(momentum, 3)} and count = {count}"
        right = textbook.updated(running_mean, running_var, mean, var, m, a)
        new = var * m / (m - 1)
        same(
            got_mean,
            right[0],
            f"The running mean {case}",
            hint="With momentum None every batch has the same weight, this one included." if momentum is None else "",
            mistakes={
                "momentum is the weight of the new value.": a * running_mean + (1 - a) * mean,
                "The count of batches is one off.": running_mean + (mean - running_mean) / (count + 2),
                "This batch counts as well.": running_mean + (mean - running_mean) / max(count, 1),
                "With momentum None the weight is not a fixed one.": running_mean + 0.1 * (mean - running_mean),
            },
        )
        same(
            got_var,
            right[1],
            f"The running variance {case}",
            hint="It moves as the running mean does, towards the unbiased variance.",
            mistakes={
                "The new value is the unbiased variance.": running_var + a * (var - running_var),
                "The unbiased variance is the larger one.": running_var + a * (var * (m - 1) / m - running_var),
                "It has not moved.": running_var,
                "momentum is the weight of the new value.": a * running_var + (1 - a) * new,
            },
        )


@checker("ch05.backward")
def backward(answer, rng) -> None:
    """`answer(g, x_hat, inv_std, weight, training)` is (grad_x, grad_weight, grad_bias)."""
    for shape in SHAPES:
        for training in (True, False):
            x, g = _batch(rng, shape), rng.normal(size=shape) + rng.normal()
            mean, var = textbook.statistics(x)
            if not training:  # running statistics are not those of the batch
                mean, var = mean + rng.normal(size=mean.shape), var * rng.uniform(0.5, 2, var.shape)
            weight, eps = rng.normal(size=shape[1]), 10 ** rng.uniform(-3, 0)
            _, x_hat, inv_std = textbook.forward(x, mean, var, weight, 0 * weight, eps)
            got = _parts(answer(g, x_hat, inv_std, weight, training), 3, "grad_x, grad_weight and grad_bias")
            expected = textbook.backward(g, x_hat, inv_std, weight, training)
            mode, m = "training" if training else "evaluation", x.size // shape[1]
            scale, grad_weight, grad_bias = per_channel(weight * inv_std, g), *expected[1:]
            through_mean, through_var = per_channel(grad_bias / m, g), x_hat * per_channel(grad_weight / m, g)
            mistakes = {
                "grad_x": {
                    "The path through the mean is missing.": scale * (g - through_var),
                    "The path through the variance is missing.": scale * (g - through_mean),
                    "In training the statistics depend on x.": scale * g,
                    "γ is missing.": expected[0] / per_channel(weight, g),
                    "1/√(σ² + ε) is missing.": expected[0] / per_channel(inv_std, g),
                    "Take the means over a channel, not the sums.": scale * (g - m * (through_mean + through_var)),
                }
                if training
                else {
                    "In evaluation the statistics are constants.": scale * (g - through_mean - through_var),
                    "γ is missing.": per_channel(inv_std, g) * g,
                },
                "grad_weight": {
                    "That is for the bias.": grad_bias,
                    "γ multiplies x̂, not x.": (g * x).sum(channel_axes(x)),
                    "Sum, do not average.": grad_weight / m,
                },
                "grad_bias": {"That is for the weight.": grad_weight, "Sum, do not average.": grad_bias / m},
            }
            for name, value, right in zip(("grad_x", "grad_weight", "grad_bias"), got, expected, strict=True):
                same(value, right, f"{name} in {mode} for x of shape {shape}", mistakes=mistakes[name])


class Layer(textbook.BatchNorm):
    """The layer of the chapter, with a state; a `fault` is one of `FAULTS`, and "correct" is none."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, fault: str = "correct"):
        super().__init__(num_features, eps, momentum)
        self._fault = fault
        if fault == "momentum reversed" and momentum is not None:
            self.momentum = 1 - momentum

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        if not self.training and self._fault == "updates in evaluation":
            self.update(*textbook.statistics(x), x.size // x.shape[1])
        return y

    def update(self, mean: Array, var: Array, m: int) -> None:
        super().update(mean, var * (m - 1) / m if self._fault == "biased variance" else var, m)

    def backward(self, g: Array) -> Array:
        if self._fault == "backward ignores the mode":
            self.cache = *self.cache[:-1], True
        return super().backward(g)

    def state_dict(self) -> dict[str, Array]:
        names = STATE[:2] if self._fault == "buffers not saved" else STATE
        return {name: getattr(self, name).copy() for name in names}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        for name in state:
            getattr(self, name)[...] = state[name]


def _made(answer, *args) -> object:
    """A layer that the answer makes, with all that is asked of it."""
    layer = answer(*args)
    asked = ("weight", "bias", "running_mean", "running_var", "training", "forward", "backward")
    if missing := [name for name in asked if not hasattr(layer, name)]:
        raise Wrong(f"The layer, a {type(layer).__name__}, has no {', no '.join(missing)}.")
    return layer


def _randomize(rng: np.random.Generator, layer, reference: Layer) -> None:
    reference.weight[...], reference.bias[...] = rng.normal(size=(2, reference.weight.size))
    layer.weight, layer.bias = reference.weight.copy(), reference.bias.copy()


def _like(layer: Layer, **changes) -> Layer:
    """A copy of a layer with other attributes."""
    other = copy.deepcopy(layer)
    vars(other).update(changes)
    return other


def _step(rng, layer, reference: Layer, x: Array, what: str, flip: bool = False) -> None:
    """Forward and backward in both layers, everything compared; with `flip` the mode changes between the two."""
    g = rng.normal(size=x.shape) + rng.normal()
    kept, kept_g, momentum = x.copy(), g.copy(), reference.momentum
    mode_or_eps = {
        "Training takes the statistics of the batch, evaluation the running ones.": _like(
            reference, training=not reference.training
        ),
        "eps is that with which the layer was made.": _like(reference, eps=1e-5),
    }
    wrong = {
        "The variance that is stored is the unbiased one.": _like(reference, _fault="biased variance"),
        "In evaluation the running statistics stay.": _like(reference, _fault="updates in evaluation"),
    }
    if momentum is None:
        wrong["momentum None is not the default, but the average of all batches."] = _like(reference, momentum=0.1)
    else:
        wrong["momentum is the weight of the new value."] = _like(reference, momentum=1 - momentum)
    for other in wrong.values():
        other.forward(x)
    outputs = {words: other.forward(x) for words, other in mode_or_eps.items()}
    right = reference.forward(x)
    got = layer.forward(x)
    if not np.array_equal(x, kept):
        raise Wrong("The layer changed an array it was given; work on a copy.")
    same(got, right, f"The output {what}", mistakes=outputs)
    for name in ("running_mean", "running_var"):
        same(
            getattr(layer, name),
            getattr(reference, name),
            f"{name} after forward {what}",
            mistakes={words: getattr(other, name) for words, other in wrong.items()},
        )
    if flip:
        layer.training = not layer.training
    *cache, training = reference.cache
    hint = "In training the statistics depend on x." if training else "In evaluation the statistics are constants."
    hint = "Backward belongs to the forward pass before it, in its mode." if flip else hint
    same(
        layer.backward(g),
        reference.backward(g),
        f"grad_x {what}{', where the mode was changed between forward and backward' if flip else ''}",
        mistakes={hint: _like(reference, cache=(*cache, not training)).backward(g)},
    )
    for name in ("grad_weight", "grad_bias"):
        if not hasattr(layer, name):
            raise Wrong(f"After backward the layer has no {name}.")
        right = getattr(reference, name)
        same(
            getattr(layer, name),
            right,
            f"{name} {what}",
            mistakes={"Sum, do not average.": right * x.shape[1] / x.size, "It is added up over the steps.": 2 * right},
        )
    if not (np.array_equal(x, kept) and np.array_equal(g, kept_g)):
        raise Wrong("The layer changed an array it was given; work on a copy.")


@checker("ch05.layer", name="make_layer")
def layer(answer, rng) -> None:
    """`answer(num_features, eps, momentum)` makes a layer."""
    for shape in SHAPES:
        for momentum in (float(rng.uniform(0.05, 0.4)), None):
            eps = 10 ** rng.uniform(-4, 0)
            made, reference = _made(answer, shape[1], eps, momentum), Layer(shape[1], eps, momentum)
            same(made.weight, reference.weight, "The initial weight")
            same(made.bias, reference.bias, "The initial bias")
            _randomize(rng, made, reference)
            where = f"for x of shape {shape}, momentum {momentum and round(momentum, 3)}"
            for step in range(3):
                made.training = reference.training = True
                _step(rng, made, reference, _batch(rng, shape), f"in training step {step + 1} {where}")
            made.training = reference.training = False
            _step(rng, made, reference, _batch(rng, shape), f"in evaluation {where}")
            made.training = reference.training = True
            _step(rng, made, reference, _batch(rng, shape), f"back in training {where}", flip=True)


@checker("ch05.state", name="make_saved_layer")
def state(answer, rng) -> None:
    """`answer(num_features, eps, momentum)` makes a layer that can be saved and loaded."""
    shape = (6, 3, 4, 5)
    for momentum in (0.3, None):
        made, reference = _made(answer, 3, 1e-3, momentum), Layer(3, 1e-3, momentum)
        for name in ("state_dict", "load_state_dict"):
            if not hasattr(made, name):
                raise Wrong(f"The layer has no {name}.")
        _randomize(rng, made, reference)
        for _ in range(3):
            x = _batch(rng, shape)
            made.forward(x), reference.forward(x)
        saved, right = made.state_dict(), reference.state_dict()
        if not isinstance(saved, dict) or set(saved) != set(STATE):
            raise Wrong(f"state_dict() should have the keys {', '.join(STATE)}; got {', '.join(map(str, saved))}.")
        made.forward(_batch(rng, shape))  # training goes on: what was saved stays
        for name in STATE:
            moved = {"It has moved with the layer: save copies.": getattr(made, name, np.nan)}
            same(saved[name], right[name], f"After one more step the saved {name}", mistakes=moved)

        loaded, again = _made(answer, 3, 1e-3, momentum), Layer(3, 1e-3, momentum)
        given = {name: values.copy() for name, values in right.items()}
        loaded.load_state_dict(given)
        again.load_state_dict(right)
        for values in given.values():
            values[...] = 77  # the loaded layer has its own arrays
        parts = {
            "The running statistics were not loaded.": STATE[:2],
            "weight and bias were not loaded.": STATE[2:],
            "The count of batches is part of the state.": STATE[:4],
        }
        wrong = {words: Layer(3, 1e-3, momentum) for words in parts}
        for words, layer in wrong.items():
            layer.load_state_dict({name: right[name] for name in parts[words]})
        wrong["The arrays that were loaded changed later: load copies."] = _like(again, **given)
        x = _batch(rng, shape)
        for layer in (loaded, again, *wrong.values()):
            layer.training = False
        outputs = {words: layer.forward(x) for words, layer in wrong.items()}
        same(loaded.forward(x), again.forward(x), "The output of the loaded layer in evaluation", mistakes=outputs)
        for layer in (loaded, again, *wrong.values()):
            layer.training = True
            layer.forward(x)
        same(
            loaded.running_mean,
            again.running_mean,
            f"running_mean of the loaded layer after one more step with momentum {momentum}",
            mistakes={words: layer.running_mean for words, layer in wrong.items() if "loaded" not in words},
        )


# --- the others ------------------------------------------------------------------------------------------------------


@checker("ch05.from_output")
def from_output(answer, rng) -> None:
    """`answer(g, y, weight, bias, inv_std)` is grad_x in training, for (N, C)."""
    for _ in range(10):
        x = _batch(rng, (int(rng.integers(3, 12)), 4))
        g, bias = rng.normal(size=x.shape) + rng.normal(), rng.normal(size=4)
        weight = rng.uniform(0.3, 2, 4) * rng.choice([-1, 1], 4)
        y, x_hat, inv_std = textbook.forward(x, *textbook.statistics(x), weight, bias, 10 ** rng.uniform(-4, 0))
        expected = textbook.backward(g, x_hat, inv_std, weight, True)[0]
        same(
            answer(g, y, weight, bias, inv_std),
            expected,
            f"grad_x for a batch of shape {x.shape}",
            tol=1e-7,
            hint="Solve y = γ x̂ + β for x̂.",
            mistakes={
                "That is the gradient of evaluation.": weight * inv_std * g,
                "y is not x̂.": weight * inv_std * (g - g.mean(axis=0) - y * (g * y).mean(axis=0)),
                "β is still in it.": weight
                * inv_std
                * (g - g.mean(axis=0) - y / weight * (g * y / weight).mean(axis=0)),
                "γ is missing.": expected / weight,
            },
        )


@checker("ch05.negative")
def negative(answer, rng) -> None:
    """`answer()` is a float32 batch whose one-pass variance is negative."""
    x = answer() if callable(answer) else answer
    if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim != 1:
        raise Wrong("The answer should be a one-dimensional NumPy array of float32.")
    if x.size < 2 or not np.isfinite(x).all() or x.min() == x.max():
        raise Wrong("The batch needs at least two finite values that are not all equal.")
    with np.errstate(over="ignore", invalid="ignore"):
        var = (x * x).mean() - x.mean() ** 2
    if not np.isfinite(var):
        raise Wrong("The squares overflow: a smaller mean is enough.")
    if not var < 0:
        raise Wrong(f"The one-pass variance of this batch is {var:.4g}, the true one {x.astype(float).var():.4g}.")


@checker("ch05.unseen")
def unseen(answer, rng) -> None:
    """`answer()` is the shape of a batch on which float32 does not show a biased running variance."""
    shape = answer() if callable(answer) else answer
    if not isinstance(shape, tuple | list) or len(shape) not in (2, 4) or not all(_is_size(size) for size in shape):
        raise Wrong(f"Return a shape, (N, C) or (N, C, H, W) of positive integers, not {shape!r}.")
    values = math.prod(shape)
    if values > 1_000_000:
        raise Wrong(f"A batch of {values:,} values is larger than a million.")
    if (m := values // shape[1]) < 2:
        raise Wrong("Training needs more than one value for each channel.")
    x = rng.normal(size=shape)
    layer, biased = Layer(shape[1]), Layer(shape[1], fault="biased variance")
    layer.forward(x)
    biased.forward(x)
    found, tolerated = max_difference(biased.running_var, layer.running_var), TOLERANCES["float32"]["output"]
    if found > tolerated:
        raise Wrong(f"The comparison sees the mistake: {found:.1e} with {m} values for each channel.")


def _is_size(size: object) -> bool:
    return isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0


FAULTS = (
    "correct",
    "biased variance",
    "momentum reversed",
    "updates in evaluation",
    "backward ignores the mode",
    "buffers not saved",
)


@checker("ch05.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(layer)` names the fault of a new layer of three channels, with ε = 1e-5 and momentum 0.1."""
    for fault in rng.permutation(list(FAULTS) * 2):
        got = answer(Layer(3, fault=str(fault)))
        if got not in FAULTS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, FAULTS))}.")
        if got != fault:
            raise Wrong(f"A layer that is {str(fault)!r} was called {got!r}.")
