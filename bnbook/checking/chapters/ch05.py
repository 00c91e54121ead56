"""Checkers of chapter 5, the layer from scratch."""

from __future__ import annotations

import numpy as np

from ..exercises import Wrong, checker, same

Array = np.ndarray

SHAPES = ((7, 3), (5, 2, 4), (4, 3, 5, 6), (2, 3, 4, 2, 5))
STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _axes(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _per_channel(values: Array, x: Array) -> Array:
    return values.reshape((1, -1) + (1,) * (x.ndim - 2))


def _batch(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values with another mean and another spread in every channel."""
    x = rng.normal(size=shape)
    return x * _per_channel(rng.uniform(0.5, 3, shape[1]), x) + _per_channel(rng.normal(0, 2, shape[1]), x)


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
        mean, var = _parts(answer(x), 2, "mean and var")
        same(mean, x.mean(_axes(x)), f"The mean for x of shape {shape}", hint="Average over all axes but the second.")
        same(var, x.var(_axes(x)), f"The variance for x of shape {shape}", hint="Divide by m, not by m − 1.")


@checker("ch05.forward")
def forward(answer, rng) -> None:
    """`answer(x, mean, var, weight, bias, eps)` is (y, x_hat, inv_std)."""
    for shape in SHAPES:
        x, (mean, bias) = _batch(rng, shape), rng.normal(size=(2, shape[1]))
        var, weight = rng.uniform(0.2, 3, shape[1]), rng.normal(size=shape[1])
        eps = 10 ** rng.uniform(-4, 0)
        inv_std = 1 / np.sqrt(var + eps)
        x_hat = (x - _per_channel(mean, x)) * _per_channel(inv_std, x)
        y, got_x_hat, got_inv_std = _parts(answer(x, mean, var, weight, bias, eps), 3, "y, x_hat and inv_std")
        for_x = f"for x of shape {shape} and ε = {eps:.3g}"
        same(np.ravel(got_inv_std), inv_std, f"inv_std {for_x}", hint="ε stands inside the root.")
        same(got_x_hat, x_hat, f"x_hat {for_x}", hint="Use the mean and the variance you are given.")
        same(y, _per_channel(weight, x) * x_hat + _per_channel(bias, x), f"y {for_x}")


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
        hint = "With momentum None every batch has the same weight, this one included." if momentum is None else ""
        same(
            got_mean,
            (1 - a) * running_mean + a * mean,
            f"The running mean {case}",
            hint=hint or "momentum is the weight of the new value.",
        )
        same(
            got_var,
            (1 - a) * running_var + a * var * m / (m - 1),
            f"The running variance {case}",
            hint="The new value is the unbiased variance.",
        )


def _gradients(g: Array, x_hat: Array, inv_std: Array, weight: Array, training: bool) -> tuple[Array, Array, Array]:
    axes = _axes(g)
    grad_x = g
    if training:
        grad_x = g - g.mean(axes, keepdims=True) - x_hat * (g * x_hat).mean(axes, keepdims=True)
    return grad_x * _per_channel(weight * inv_std, g), (g * x_hat).sum(axes), g.sum(axes)


@checker("ch05.backward")
def backward(answer, rng) -> None:
    """`answer(g, x_hat, inv_std, weight, training)` is (grad_x, grad_weight, grad_bias)."""
    for shape in SHAPES:
        for training in (True, False):
            x, g = _batch(rng, shape), rng.normal(size=shape) + rng.normal()
            mean, var = x.mean(_axes(x)), x.var(_axes(x))
            if not training:  # running statistics are not those of the batch
                mean, var = mean + rng.normal(size=mean.shape), var * rng.uniform(0.5, 2, var.shape)
            weight, inv_std = rng.normal(size=shape[1]), 1 / np.sqrt(var + 10 ** rng.uniform(-3, 0))
            x_hat = (x - _per_channel(mean, x)) * _per_channel(inv_std, x)
            got = _parts(answer(g, x_hat, inv_std, weight, training), 3, "grad_x, grad_weight and grad_bias")
            expected = _gradients(g, x_hat, inv_std, weight, training)
            mode = "training" if training else "evaluation"
            for name, value, right in zip(("grad_x", "grad_weight", "grad_bias"), got, expected, strict=True):
                hint = "In evaluation the statistics are constants." if name == "grad_x" and not training else ""
                same(value, right, f"{name} in {mode} for x of shape {shape}", hint=hint)


class Layer:
    """The layer of the chapter; a `fault` is one of `FAULTS`, and "correct" is none."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, fault: str = "correct"):
        self.weight, self.bias = np.ones(num_features), np.zeros(num_features)
        self.running_mean, self.running_var = np.zeros(num_features), np.ones(num_features)
        self.num_batches_tracked = np.array(0)
        self.eps, self.momentum, self.training, self._fault = eps, momentum, True, fault

    def forward(self, x: Array) -> Array:
        m = x.size // x.shape[1]
        mean, var = self.running_mean.copy(), self.running_var.copy()
        if self.training:
            mean, var = x.mean(_axes(x)), x.var(_axes(x))
        if self.training or self._fault == "updates in evaluation":
            self.num_batches_tracked += 1
            a = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            a = 1 - a if self._fault == "momentum reversed" else a
            bessel = 1 if self._fault == "biased variance" else m / (m - 1)
            self.running_mean += a * (x.mean(_axes(x)) - self.running_mean)
            self.running_var += a * (bessel * x.var(_axes(x)) - self.running_var)
        inv_std = 1 / np.sqrt(var + self.eps)
        x_hat = (x - _per_channel(mean, x)) * _per_channel(inv_std, x)
        self._cache = x_hat, inv_std, self.training
        return _per_channel(self.weight, x) * x_hat + _per_channel(self.bias, x)

    def backward(self, g: Array) -> Array:
        x_hat, inv_std, training = self._cache
        training = training or self._fault == "backward ignores the mode"
        grad_x, self.grad_weight, self.grad_bias = _gradients(g, x_hat, inv_std, self.weight, training)
        return grad_x

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


def _step(rng, layer, reference: Layer, x: Array, what: str, flip: bool = False) -> None:
    """Forward and backward in both layers, everything compared; with `flip` the mode changes between the two."""
    g = rng.normal(size=x.shape) + rng.normal()
    kept, kept_g = x.copy(), g.copy()
    same(layer.forward(x), reference.forward(x), f"The output {what}")
    for name in ("running_mean", "running_var"):
        same(getattr(layer, name), getattr(reference, name), f"{name} after forward {what}")
    if flip:
        layer.training = not layer.training
    same(
        layer.backward(g),
        reference.backward(g),
        f"grad_x {what}{', where the mode was changed between forward and backward' if flip else ''}",
    )
    for name in ("grad_weight", "grad_bias"):
        if not hasattr(layer, name):
            raise Wrong(f"After backward the layer has no {name}.")
        same(getattr(layer, name), getattr(reference, name), f"{name} {what}")
    if not (np.array_equal(x, kept) and np.array_equal(g, kept_g)):
        raise Wrong("The layer changed an array it was given; work on a copy.")


@checker("ch05.layer")
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


@checker("ch05.state")
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
            same(saved[name], right[name], f"After one more step the saved {name}", hint="Save copies.")

        loaded, again = _made(answer, 3, 1e-3, momentum), Layer(3, 1e-3, momentum)
        given = {name: values.copy() for name, values in right.items()}
        loaded.load_state_dict(given)
        again.load_state_dict(right)
        for values in given.values():
            values[...] = 77  # the loaded layer has its own arrays
        loaded.training = again.training = False
        x = _batch(rng, shape)
        same(loaded.forward(x), again.forward(x), "The output of the loaded layer in evaluation", hint="Load copies.")
        loaded.training = again.training = True
        loaded.forward(x), again.forward(x)
        same(
            loaded.running_mean,
            again.running_mean,
            f"running_mean of the loaded layer after one more step with momentum {momentum}",
            hint="The count of batches is part of the state.",
        )


# --- the others ------------------------------------------------------------------------------------------------------


@checker("ch05.from_output")
def from_output(answer, rng) -> None:
    """`answer(g, y, weight, bias, inv_std)` is grad_x in training, for (N, C)."""
    for _ in range(10):
        x = _batch(rng, (int(rng.integers(3, 12)), 4))
        g, bias = rng.normal(size=x.shape) + rng.normal(), rng.normal(size=4)
        weight = rng.uniform(0.3, 2, 4) * rng.choice([-1, 1], 4)
        inv_std = 1 / np.sqrt(x.var(0) + 10 ** rng.uniform(-4, 0))
        x_hat = (x - x.mean(0)) * inv_std
        expected = _gradients(g, x_hat, inv_std, weight, True)[0]
        same(
            answer(g, weight * x_hat + bias, weight, bias, inv_std),
            expected,
            f"grad_x for a batch of shape {x.shape}",
            tol=1e-7,
            hint="Solve y = γ x̂ + β for x̂.",
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
