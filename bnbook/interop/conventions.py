"""What the frameworks mean by the same words, measured on what is installed; `bnbook.interop` offers all of it.

Every row of `conventions` comes from one training step on random numbers, so that it says what a framework does and
not what its documentation says.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import __version__, nn
from ..functional._checks import check_number

Array = np.ndarray

# --- momentum --------------------------------------------------------------------------------------------------------

WEIGHS = {"bnbook": "new", "torch": "new", "keras": "old", "fused": "new", "onnx": "old"}
"""Which value `momentum` is the weight of; "fused" is `exponential_avg_factor` of TensorFlow's fused operation."""


def convert_momentum(momentum: float, source: str, target: str) -> float:
    r"""The momentum that means in one framework what `momentum` means in another: itself or 1 − itself.

    With α the weight of the new value, $\bar\mu \leftarrow (1-\alpha)\bar\mu + \alpha\mu$: torch and bnbook call α the
    momentum, Keras and ONNX 1 − α.

    Args:
        momentum: from 0 to 1.
        source, target: "bnbook", "torch", "keras", "fused" (TensorFlow's fused operation) or "onnx".

    Raises:
        ValueError: an unknown framework, or a momentum outside of 0 to 1.
    """
    for name, framework in (("source", source), ("target", target)):
        if framework not in WEIGHS:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, WEIGHS))}, got {framework!r}")
    check_number("momentum", momentum, at_least=0)
    if momentum > 1:
        raise ValueError(f"momentum must be from 0 to 1, got {momentum}")
    if WEIGHS[source] == WEIGHS[target]:
        return momentum
    return round(1 - momentum, 15)  # 0.01 for 0.99, not 0.010000000000000009


def half_life(momentum: float) -> float:
    r"""The number of steps after which an old value has half of its weight left: $\ln\frac12 / \ln(1-\alpha)$.

    Args:
        momentum: α, the weight of the new value (torch's meaning), between 0 and 1.
    """
    check_number("momentum", momentum, above=0)
    if momentum >= 1:
        raise ValueError(f"momentum must be less than 1, got {momentum}")
    return -math.log(2) / math.log1p(-momentum)


def momentum_of_half_life(steps: float) -> float:
    r"""The momentum (weight of the new value) with which an old value halves in `steps` steps: $1 - 2^{-1/steps}$."""
    check_number("steps", steps, above=0)
    return -math.expm1(-math.log(2) / steps)


# --- the frameworks, each behind one interface -----------------------------------------------------------------------

Result = tuple[Array, Array, Array]  # y, and the running mean and variance afterwards


class Framework(NamedTuple):
    """One framework: what it has by default, and what it can be asked to do."""

    version: str
    eps: float
    momentum: float
    initial: tuple[float, float] | None
    """The running mean and variance of a new layer; None where the caller gives them."""
    step: Callable[[Array, Array, Array, float], Result]
    """One training step on x, (N, C) or images, from a running mean and variance, with a momentum."""
    frozen: dict[str, Callable[[Array], Result]]
    """The ways to freeze: a step on x in training mode, from a running mean 0 and variance 1."""
    learned: tuple[str, ...] = ()
    """The names of γ and β."""
    statistics: tuple[str, ...] = ()
    """The names of the running statistics, and of what else is kept beside them."""
    mode: str = ""
    """What chooses between training and evaluation, as code."""


def _modules(module: Any, version: str, to: Callable, back: Callable, frozen: dict[str, Callable]) -> Framework:
    """bnbook and torch, which have the same layers."""

    def run(x: Array, layer: Any) -> Result:
        return back(layer(to(x))), back(layer.running_mean), back(layer.running_var)

    def layer(x: Array, momentum: float) -> Any:
        return (module.BatchNorm1d if x.ndim == 2 else module.BatchNorm2d)(x.shape[1], momentum=momentum)

    def step(x: Array, mean: Array, var: Array, momentum: float) -> Result:
        made = layer(x, momentum)
        made.running_mean[...], made.running_var[...] = to(mean), to(var)
        return run(x, made)

    def when(freeze: Callable) -> Callable[[Array], Result]:
        def run_frozen(x: Array) -> Result:
            made = layer(x, default.momentum)
            freeze(made)
            return run(x, made)

        return run_frozen

    default = module.BatchNorm1d(1)
    initial = float(default.running_mean[0]), float(default.running_var[0])
    ways = {name: when(freeze) for name, freeze in frozen.items()}
    learned = tuple(name for name, _ in default.named_parameters())
    statistics = tuple(name for name, _ in default.named_buffers())
    mode = "train(), eval()"
    return Framework(version, default.eps, default.momentum, initial, step, ways, learned, statistics, mode)


def _bnbook() -> Framework:
    return _modules(nn, __version__, np.asarray, np.copy, {"eval()": lambda layer: layer.eval()})


def _torch() -> Framework:
    import torch

    return _modules(
        torch.nn,
        torch.__version__.partition("+")[0],  # without the build
        torch.from_numpy,
        lambda t: t.detach().numpy().copy(),
        {"requires_grad_(False)": lambda layer: layer.requires_grad_(False), "eval()": lambda layer: layer.eval()},
    )


def _keras() -> Framework:
    from ..models.keras_cnn import keras

    def run(layer: Any, x: Array) -> Result:
        y = layer(x, training=True)
        return np.array(y), np.asarray(layer.moving_mean).copy(), np.asarray(layer.moving_variance).copy()

    def step(x: Array, mean: Array, var: Array, momentum: float) -> Result:
        layer = keras.layers.BatchNormalization(momentum=momentum)
        layer.build(x.shape)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(var)
        return run(layer, x)

    def not_trainable(x: Array) -> Result:
        layer = keras.layers.BatchNormalization()
        layer.trainable = False
        return run(layer, x)

    default = keras.layers.BatchNormalization()
    default.build((None, 1))
    initial = float(default.moving_mean[0]), float(default.moving_variance[0])
    learned = tuple(variable.name for variable in default.trainable_variables)
    statistics = tuple(variable.name for variable in default.non_trainable_variables)
    return Framework(
        keras.__version__, default.epsilon, default.momentum, initial, step, {"trainable=False": not_trainable},
        learned, statistics, "training=",
    )  # fmt: skip


def _fused() -> Framework:
    from ..models.keras_cnn import tf

    operation = tf.raw_ops.FusedBatchNormV3

    def step(x: Array, mean: Array, var: Array, momentum: float, is_training: bool = True) -> Result:
        image = x if x.ndim == 4 else x[:, None, None, :]
        ones = np.ones_like(mean)
        out = operation(
            x=image, scale=ones, offset=0 * ones, mean=mean, variance=var,
            exponential_avg_factor=momentum, is_training=is_training,
        )  # fmt: skip
        return out.y.numpy().reshape(x.shape), out.batch_mean.numpy(), out.batch_variance.numpy()

    def inference(x: Array) -> Result:
        return step(x, *_fresh(x), momentum=1.0, is_training=False)

    default = {name: p.default for name, p in inspect.signature(operation).parameters.items()}
    return Framework(
        tf.__version__, default["epsilon"], float(default["exponential_avg_factor"]), None, step,
        {"is_training=False": inference}, *_of_inputs(list(default)), "is_training=",
    )  # fmt: skip


def _onnx() -> Framework:
    import onnx
    from onnx.reference import ReferenceEvaluator

    opset = 15
    schema = onnx.defs.get_schema("BatchNormalization", opset)
    eps, momentum = (round(schema.attributes[name].default_value.f, 9) for name in ("epsilon", "momentum"))

    def run(x: Array, mean: Array, var: Array, outputs: list[str], **attributes: Any) -> list[Array]:
        inputs = {"x": x, "scale": np.ones_like(mean), "bias": np.zeros_like(mean), "mean": mean, "var": var}
        node = onnx.helper.make_node("BatchNormalization", list(inputs), outputs, **attributes)
        untyped = [[onnx.helper.make_empty_tensor_value_info(name) for name in names] for names in (inputs, outputs)]
        graph = onnx.helper.make_graph([node], "step", *untyped)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        return ReferenceEvaluator(model).run(None, inputs)

    def step(x: Array, mean: Array, var: Array, momentum: float) -> Result:
        return tuple(run(x, mean, var, ["y", "new_mean", "new_var"], training_mode=1, momentum=momentum))

    def inference(x: Array) -> Result:
        return run(x, *_fresh(x), ["y"], training_mode=0)[0], *_fresh(x)

    names = _of_inputs([tensor.name for tensor in schema.inputs])
    return Framework(
        onnx.__version__, eps, momentum, None, step, {"training_mode=0": inference}, *names, "training_mode="
    )


def _of_inputs(names: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of an operation without a state: its inputs are x, γ, β, mean and variance, in this order."""
    return tuple(names[1:3]), tuple(names[3:5])


FRAMEWORKS = {
    "bnbook": ("bnbook", _bnbook),
    "torch": ("PyTorch", _torch),
    "keras": ("Keras layer", _keras),
    "fused": ("TensorFlow's fused operation", _fused),
    "onnx": ("ONNX's reference", _onnx),
}


# --- what is measured ------------------------------------------------------------------------------------------------

COLUMNS = (
    "framework",
    "version",
    "eps",
    "momentum",
    "momentum weighs",
    "running variance",
    "initial statistics",
    "one value per channel",
    "channel axis",
    "learned",
    "statistics",
    "mode",
    "freezing",
)


def conventions() -> list[dict[str, str]]:
    """One row a framework, of strings under the names in `COLUMNS`; dashes for one that is not installed.

    ====================== ===================================================================================
    column                 how it is found
    ====================== ===================================================================================
    eps, momentum          the defaults of a new layer, or in the signature
    momentum weighs        a step with momentum 1/4: how far does the running mean go, 1/4 or 3/4 of the way?
    running variance       the same step: was it the sum of squares over m, or over m − 1?
    initial statistics     the running mean and variance of a new layer
    one value per channel  a training step on a batch of one: the error, or what the outputs are
    channel axis           the axis along which every slice of the output has mean 0
    learned, statistics    the names of γ and β, and of what is kept beside them: of a new layer, or in the signature
    mode                   what the steps here choose training and evaluation by
    freezing               a call in training mode: do the running statistics move, and which statistics normalize?
    ====================== ===================================================================================
    """
    rows = []
    for title, make in FRAMEWORKS.values():
        try:
            framework = make()
        except ModuleNotFoundError as error:
            rows.append(dict.fromkeys(COLUMNS, "–") | {"framework": title, "version": f"not installed: {error.name}"})
            continue
        rows.append(dict(zip(COLUMNS, (title, framework.version, *_measure(framework)), strict=True)))
    return rows


def _measure(framework: Framework) -> tuple[str, ...]:
    weighs, variance = _averages(framework)
    return (
        f"{framework.eps:g}",
        f"{framework.momentum:g}",
        weighs,
        variance,
        "the caller's" if framework.initial is None else "{:g} and {:g}".format(*framework.initial),
        _one_value(framework),
        _axis(framework),
        ", ".join(framework.learned),
        ", ".join(framework.statistics),
        framework.mode,
        "; ".join(f"{way}: {_moves(run)}" for way, run in framework.frozen.items()),
    )


def _random(*shape: int) -> Array:
    return np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)


def _fresh(x: Array) -> tuple[Array, Array]:
    channels = x.shape[-1]
    return np.zeros(channels, x.dtype), np.ones(channels, x.dtype)


def _averages(framework: Framework) -> tuple[str, str]:
    x = _random(8, 3)
    mean, var = np.array([1, -2, 4], x.dtype), np.array([0.5, 9, 2], x.dtype)
    _, new_mean, new_var = framework.step(x, mean, var, 0.25)
    share = (new_mean - mean) / (x.mean(0) - mean)
    weighs = _which(share, {"new": 0.25, "old": 0.75})
    batch_var = var + (new_var - var) / share
    return weighs, _which(batch_var, {"biased, 1/m": x.var(0), "unbiased, 1/(m−1)": x.var(0, ddof=1)})


def _which(measured: Array, candidates: dict[str, Any]) -> str:
    """The candidate that was measured, to 0.1 %."""
    return next((name for name, value in candidates.items() if np.allclose(measured, value, rtol=1e-3)), "neither")


def _one_value(framework: Framework) -> str:
    x = _random(1, 3)
    try:
        y, _, _ = framework.step(x, *_fresh(x), 0.25)
    except Exception as error:  # whatever kind it is: that is the question
        return type(error).__name__
    return "nan" if np.isnan(y).all() else "zeros" if not y.any() else "other values"


def _axis(framework: Framework) -> str:
    x = _random(4, 4, 4, 4)  # equal lengths, so that every axis could be that of the channels
    y, _, _ = framework.step(x, *_fresh(x), 0.25)
    means = {axis: y.mean(tuple(a for a in range(4) if a != axis)) for axis in range(4)}
    axes = [str(axis) for axis, mean in means.items() if np.abs(mean).max() < 1e-5]
    return " and ".join(axes) + (" (the last)" if axes == ["3"] else "")


def _moves(run: Callable[[Array], Result]) -> str:
    x = _random(8, 3)
    y, mean, var = run(x)
    by_batch = np.abs(y.mean(0)).max() < 1e-3
    moved = not (np.array_equal(mean, np.zeros(3)) and np.array_equal(var, np.ones(3)))
    return f"{'batch' if by_batch else 'running'} statistics normalize, running ones {'move' if moved else 'stay'}"
