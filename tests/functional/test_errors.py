"""Bad arguments: which error, what it says, and that nothing has changed afterwards.

A message names the argument, what was given and what is accepted. Where torch refuses the same call, the table says so
and the call is made there, too: what torch refuses is refused.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from bnbook import functional as F
from tests.references import generator, torch

RNG = generator("errors")
X = RNG.normal(size=(4, 3, 5, 6))


def vector(n=3, dtype=np.float64):
    return RNG.uniform(0.5, 2, n).astype(dtype)


def read_only(n=3):
    value = vector(n)
    value.flags.writeable = False
    return value


class Tensor:
    """Stands for an array of another library."""

    shape, ndim, dtype = (4, 3), 2, np.dtype(np.float64)


GOOD = {
    "batch_norm": lambda: {
        "x": X.copy(),
        "running_mean": vector(),
        "running_var": vector(),
        "weight": vector(),
        "bias": vector(),
        "training": True,
        "momentum": 0.1,
        "eps": 1e-5,
    },
    "instance_norm": lambda: {
        "x": X.copy(),
        "running_mean": vector(),
        "running_var": vector(),
        "weight": vector(),
        "bias": vector(),
        "use_input_stats": True,
        "momentum": 0.1,
        "eps": 1e-5,
    },
    "layer_norm": lambda: {
        "x": X.copy(),
        "normalized_shape": (6,),
        "weight": vector(6),
        "bias": vector(6),
        "eps": 1e-5,
    },
    "rms_norm": lambda: {"x": X.copy(), "normalized_shape": (6,), "weight": vector(6), "eps": 1e-5},
    "group_norm": lambda: {"x": X.copy(), "num_groups": 3, "weight": vector(), "bias": vector(), "eps": 1e-5},
    "linear": lambda: {"x": X.copy(), "weight": RNG.normal(size=(2, 6)), "bias": vector(2)},
    "conv2d": lambda: {
        "x": X.copy(),
        "weight": RNG.normal(size=(2, 3, 3, 2)),
        "bias": vector(2),
        "stride": 1,
        "padding": 0,
    },
    "max_pool2d": lambda: {"x": X.copy(), "kernel_size": 2, "stride": 2, "padding": 0},
    "cross_entropy": lambda: {"x": X[:, :, 0, 0].copy(), "target": np.array([0, 2, 1, 2]), "reduction": "mean"},
    "softmax": lambda: {"x": X.copy(), "dim": 1},
    "relu": lambda: {"x": X.copy()},
    "sigmoid": lambda: {"x": X.copy()},
    "tanh": lambda: {"x": X.copy()},
}

# function, changed arguments, error, what the message says, whether torch refuses it as well
BAD: list[tuple[str, dict, type, tuple[str, ...], bool]] = []


def bad(function: str, changes: dict, error: type, *says: str, torch_too: bool = False) -> None:
    BAD.append((function, changes, error, says, torch_too))


for name in GOOD:  # the kind of x, everywhere
    bad(name, {"x": X.tolist()}, TypeError, "x must be a NumPy array", "list", torch_too=True)
    bad(name, {"x": None}, TypeError, "x must be a NumPy array", "NoneType", torch_too=True)
    bad(name, {"x": Tensor()}, TypeError, "x must be a NumPy array", "Tensor")
    bad(name, {"x": np.ones(X.shape, np.int64)}, TypeError, "x must be a float16, float32 or float64", "int64")
    bad(name, {"x": X > 0}, TypeError, "x must be a float", "bool")
    bad(name, {"x": X.astype(complex)}, TypeError, "x must be a float", "complex128")
    bad(name, {"x": X.astype(object)}, TypeError, "x must be a float", "object")
    for argument, given in GOOD[name]().items():  # a mask, of whatever argument
        if isinstance(given, np.ndarray):
            says = f"{argument} must be an array without a mask, got a masked array: give {argument}.filled(...)"
            bad(name, {argument: np.ma.masked_array(given, given == given)}, TypeError, says)
for name in ("batch_norm", "instance_norm", "layer_norm", "group_norm", "linear", "conv2d"):
    for parameter in ("running_mean", "running_var", "weight", "bias"):
        if parameter not in GOOD[name]():
            continue
        shape = GOOD[name]()[parameter].shape
        wrong = {"dtype": np.ones(shape, np.float32), "integers": np.ones(shape, int), "list": [1.0] * shape[0]}
        bad(name, {parameter: wrong["dtype"]}, TypeError, f"{parameter} must be float64 like x, got float32")
        bad(name, {parameter: wrong["integers"]}, TypeError, f"{parameter} must be a float", "int64")
        bad(name, {parameter: wrong["list"]}, TypeError, f"{parameter} must be a NumPy array, got builtins.list")
        bad(
            name, {"x": X.astype(np.float32), **{p: None for p in ()}}, TypeError, "must be float32 like x, got float64"
        )
        if len(shape) == 1:
            for other in ((shape[0] + 1,), (1,), (), (1, shape[0]), (0,)):
                says = f"{parameter} has shape {other}, expected {shape}"
                bad(name, {parameter: np.ones(other)}, ValueError, says, torch_too=len(other) == 1 and name != "linear")
for name in ("batch_norm", "instance_norm"):
    evaluation = {"training" if name == "batch_norm" else "use_input_stats": False}
    for missing in ("running_mean", "running_var"):
        bad(name, {missing: None}, ValueError, f"{missing} is None: give both running statistics or neither")
        bad(name, {missing: None, **evaluation}, ValueError, f"{missing} is None", torch_too=True)
    none = {"running_mean": None, "running_var": None}
    bad(name, none | evaluation, ValueError, "running_mean is None, but evaluation", torch_too=True)
    bad(name, {"running_mean": read_only()}, ValueError, "running_mean is read-only, but training updates it in place")
    bad(name, {"running_var": read_only()}, ValueError, "running_var is read-only, but training updates it in place")
    for ndim in (1, 6) if name == "batch_norm" else (1, 2, 6):
        x = np.ones((3,) * ndim)
        bad(name, {"x": x}, ValueError, f"x has shape {x.shape}, expected", "(N, C, D, H, W)", torch_too=ndim == 1)
    for eps in (0, 0.0, -1, -1e-5):
        bad(name, {"eps": eps}, ValueError, f"eps must be greater than 0, got {eps}", torch_too=name == "batch_norm")
    for number in ("eps", "momentum"):
        bad(name, {number: np.nan}, ValueError, f"{number} must be finite, got nan")
        bad(name, {number: np.inf}, ValueError, f"{number} must be finite, got inf")
        bad(name, {number: "a"}, TypeError, f"{number} must be a number, got str", torch_too=True)
        bad(name, {number: None}, TypeError, f"{number} must be a number, got NoneType", torch_too=True)
        bad(name, {number: True}, TypeError, f"{number} must be a number, got bool")
        bad(name, {number: np.array([0.1])}, TypeError, f"{number} must be a number, got ndarray")
        bad(name, {number: 1j}, TypeError, f"{number} must be a number, got complex", torch_too=True)
    bad(name, {"eps": "a", **evaluation}, TypeError, "eps must be a number", torch_too=True)
    mode = next(iter(evaluation))
    for flag in ("yes", None, 1):
        bad(name, {mode: flag}, TypeError, f"{mode} must be True or False, got {flag!r}", torch_too=flag != 1)
for shape in ((1, 3), (1, 3, 1), (1, 3, 1, 1), (1, 3, 1, 1, 1)):
    says = "expected more than one value per channel in training", str(shape)
    bad("batch_norm", {"x": np.ones(shape)}, ValueError, *says, torch_too=True)
for shape in ((4, 3, 1), (4, 3, 1, 1), (4, 3, 1, 1, 1)):
    says = "expected more than one value per image and channel in training", str(shape)
    bad("instance_norm", {"x": np.ones(shape)}, ValueError, *says, torch_too=True)
for name in ("layer_norm", "rms_norm"):
    for shape in (5, (5,), (5, 5), (5, 6, 6), (1, 4, 3, 5, 6), (1,)):
        says = "x has shape (4, 3, 5, 6), expected one that ends in normalized_shape="
        bad(name, {"normalized_shape": shape, "weight": None}, ValueError, says, torch_too=isinstance(shape, tuple))
    bad(name, {"normalized_shape": ()}, ValueError, "normalized_shape must name at least one axis", torch_too=True)
    bad(name, {"normalized_shape": 6.0}, TypeError, "normalized_shape must be an integer, got 6.0", torch_too=True)
    bad(name, {"normalized_shape": "6"}, TypeError, "normalized_shape must be an integer, got '6'", torch_too=True)
    bad(name, {"normalized_shape": (-6,)}, ValueError, "normalized_shape must be at least 0, got -6", torch_too=True)
    bad(name, {"normalized_shape": None}, TypeError, "normalized_shape must be an integer, got None", torch_too=True)
for name in ("layer_norm", "rms_norm", "group_norm"):
    bad(name, {"eps": -1e-5}, ValueError, "eps must be at least 0, got -1e-05")
    bad(name, {"eps": np.nan}, ValueError, "eps must be finite, got nan")
    bad(name, {"eps": "a"}, TypeError, "eps must be a number, got str", torch_too=True)
    bad(name, {"weight": np.ones(4)}, ValueError, "weight has shape (4,), expected", torch_too=True)
bad("layer_norm", {"eps": None}, TypeError, "eps must be a number, got NoneType", torch_too=True)
bad("rms_norm", {"weight": np.ones(6, np.float32)}, TypeError, "weight must be float64 like x, got float32")
bad("group_norm", {"num_groups": 2}, ValueError, "num_groups must divide the 3 channels of x, got 2", torch_too=True)
bad("group_norm", {"num_groups": 6}, ValueError, "num_groups must divide the 3 channels of x, got 6", torch_too=True)
bad("group_norm", {"num_groups": 0}, ValueError, "num_groups must be at least 1, got 0", torch_too=True)
bad("group_norm", {"num_groups": -3}, ValueError, "num_groups must be at least 1, got -3", torch_too=True)
bad("group_norm", {"num_groups": 1.0}, TypeError, "num_groups must be an integer, got 1.0", torch_too=True)
bad("group_norm", {"num_groups": True}, TypeError, "num_groups must be an integer, got True")
bad("group_norm", {"x": np.ones(3)}, ValueError, "x has shape (3,), expected (N, C) or (N, C, *)", torch_too=True)
bad("group_norm", {"x": np.ones((1, 3))}, ValueError, "expected more than one value per group", torch_too=True)

bad("linear", {"weight": np.ones((2, 5))}, ValueError, "x has shape (4, 3, 5, 6), expected (*, 5)", torch_too=True)
bad("linear", {"weight": np.ones(6)}, ValueError, "weight has shape (6,), expected (out_features, in_features)")
bad("linear", {"weight": None}, TypeError, "weight must be a NumPy array, got builtins.NoneType", torch_too=True)
bad("linear", {"x": np.array(1.0)}, ValueError, "x has shape (), expected (*, 6)", torch_too=True)

bad("conv2d", {"weight": None}, TypeError, "weight must be a NumPy array, got builtins.NoneType", torch_too=True)
bad("conv2d", {"weight": np.ones((2, 4, 3, 2))}, ValueError, "3 channels", "expects 4", torch_too=True)
bad("conv2d", {"weight": np.ones((2, 1, 3, 2))}, ValueError, "3 channels", "expects 1", torch_too=True)
bad("conv2d", {"weight": np.ones((2, 3, 3))}, ValueError, "weight has shape (2, 3, 3), expected (F, C, kh, kw)")
bad("conv2d", {"weight": np.ones((2, 3, 6, 2))}, ValueError, "6×2 kernel", "5×6", torch_too=True)
bad("conv2d", {"weight": np.ones((2, 3, 3, 9)), "padding": 1}, ValueError, "3×9 kernel", "7×8", torch_too=True)
bad("conv2d", {"weight": np.ones((0, 3, 3, 2)), "bias": None}, ValueError, "at least one filter", torch_too=True)
bad("conv2d", {"weight": np.ones((2, 3, 0, 2))}, ValueError, "0×2 kernel", torch_too=True)
for shape in ((4, 3, 5), (3,), (1, 4, 3, 5, 6)):
    bad("conv2d", {"x": np.ones(shape)}, ValueError, f"x has shape {shape}, expected (N, C, H, W)")
    bad("max_pool2d", {"x": np.ones(shape)}, ValueError, f"x has shape {shape}, expected (N, C, H, W)")
for name in ("conv2d", "max_pool2d"):
    for stride in (0, -1, (0, 1), (1, -2)):
        bad(name, {"stride": stride}, ValueError, "stride must be at least 1, got ", torch_too=True)
    for stride in (1.5, "1", (1, 2.0)):
        bad(name, {"stride": stride}, TypeError, "stride must be an integer, got ", torch_too=True)
    bad(name, {"stride": True}, TypeError, "stride must be an integer, got True")
    bad(name, {"stride": (1, 2, 3)}, ValueError, "stride must be an integer or a pair of integers", torch_too=True)
    bad(name, {"padding": -1}, ValueError, "padding must be at least 0, got -1", torch_too=True)
    bad(name, {"padding": (0, -1)}, ValueError, "padding must be at least 0, got -1", torch_too=True)
    bad(name, {"padding": 0.5}, TypeError, "padding must be an integer, got 0.5", torch_too=True)
    bad(name, {"padding": None}, TypeError, "padding must be an integer, got None", torch_too=True)
bad("conv2d", {"stride": None}, TypeError, "stride must be an integer, got None", torch_too=True)
for kernel_size, error in ((0, ValueError), (-2, ValueError), (1.5, TypeError), (None, TypeError), (True, TypeError)):
    says = "kernel_size must be at least 1" if error is ValueError else "kernel_size must be an integer"
    bad("max_pool2d", {"kernel_size": kernel_size}, error, says, torch_too=kernel_size is not True)
bad("max_pool2d", {"kernel_size": (6, 2)}, ValueError, "kernel_size is 6×2, x with its padding is 5×6", torch_too=True)
bad("max_pool2d", {"kernel_size": (2, 7)}, ValueError, "kernel_size is 2×7, x with its padding is 5×6", torch_too=True)
for shape in ((2, 3, 0, 5), (2, 3, 5, 0)):  # padding alone would be larger than the kernel
    bad("conv2d", {"x": np.ones(shape), "padding": 3}, ValueError, f"x has shape {shape}", "one pixel", torch_too=True)
for shape in ((2, 3, 0, 5), (2, 3, 5, 0), (2, 0, 5, 6)):
    bad("max_pool2d", {"x": np.ones(shape), "padding": 1}, ValueError, f"x has shape {shape}", torch_too=True)
bad("max_pool2d", {"kernel_size": 7}, ValueError, "kernel_size is 7×7", torch_too=True)
bad("max_pool2d", {"padding": 2}, ValueError, "padding must be at most half of kernel_size (2, 2)", torch_too=True)
bad("max_pool2d", {"kernel_size": 3, "padding": (0, 2)}, ValueError, "at most half of kernel_size", torch_too=True)

for target, error, says in (
    ([0, 2, 1, 2], TypeError, "target must be an array of integer class labels, got list"),
    (None, TypeError, "target must be an array of integer class labels, got NoneType"),
    (np.array([0.0, 2, 1, 2]), TypeError, "target must be an array of integer class labels, got float64"),
    (np.array([True, False, True, True]), TypeError, "target must be an array of integer class labels, got bool"),
    (np.array([0, 3, 1, 2]), ValueError, "target must hold labels from 0 to 2, got 3"),
    (np.array([0, -1, 1, 2]), ValueError, "target must hold labels from 0 to 2, got -1"),
    (np.array([0, 2, 1]), ValueError, "target has shape (3,), expected (4,): one label for each"),
    (np.array([[0], [2], [1], [2]]), ValueError, "target has shape (4, 1), expected (4,)"),
    (np.array(1), ValueError, "target has shape (), expected (4,)"),
):
    bad(
        "cross_entropy",
        {"target": target},
        error,
        says,
        torch_too=error is ValueError or not isinstance(target, np.ndarray),
    )
bad("cross_entropy", {"x": np.ones(3)}, ValueError, "x has shape (3,), expected logits (N, C) or (N, C, *)")
bad(
    "cross_entropy",
    {"x": np.ones((4, 0))},
    ValueError,
    "expected logits (N, C) or (N, C, *) with C ≥ 1",
    torch_too=True,
)
for reduction in ("average", None, ""):
    says = f'reduction must be "mean", "sum" or "none", got {reduction!r}'
    bad("cross_entropy", {"reduction": reduction}, ValueError, says, torch_too=True)
bad("softmax", {"dim": 4}, ValueError, "dim must be less than 4 for x of shape (4, 3, 5, 6), got 4", torch_too=True)
bad("softmax", {"dim": -5}, ValueError, "dim must be at least -4, got -5", torch_too=True)
bad("softmax", {"dim": 1.0}, TypeError, "dim must be an integer, got 1.0", torch_too=True)


def describe(case) -> str:
    function, changes, *_ = case
    parts = []
    for name, value in changes.items():
        if isinstance(value, np.ndarray):
            value = f"{value.dtype}{list(value.shape)}{'' if value.flags.writeable else '-read-only'}"
        parts.append(f"{name}={type(value).__name__ if isinstance(value, list | Tensor) else value}")
    return f"{function}({', '.join(parts)})"


@pytest.mark.parametrize("case", BAD, ids=describe)
def test_bad_arguments(case):
    function, changes, error, says, _ = case
    arguments = GOOD[function]() | changes
    copies = {name: value.copy() for name, value in arguments.items() if isinstance(value, np.ndarray)}
    with pytest.raises(error) as raised:
        getattr(F, function)(**arguments)
    for part in says:
        assert part in str(raised.value)
    for name, value in copies.items():
        np.testing.assert_array_equal(arguments[name], value, err_msg=f"{name} was modified")


@pytest.mark.parametrize("function", GOOD)
def test_the_unchanged_arguments_are_good(function):
    getattr(F, function)(**GOOD[function]())


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("case", [case for case in BAD if case[-1]], ids=describe)
def test_torch_refuses_it_too(case):
    """The table is honest about torch."""
    function, changes, *_ = case
    arguments = GOOD[function]() | changes
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            arguments[name] = torch.tensor(value)
    arguments["input"] = arguments.pop("x")
    if isinstance(arguments["input"], Tensor):
        pytest.skip("not an array of torch either")
    with pytest.raises((ValueError, TypeError, RuntimeError, IndexError, AttributeError, ZeroDivisionError)):
        getattr(torch.nn.functional, function)(**arguments)


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("function", GOOD)
def test_a_tensor_is_named(function):
    arguments = GOOD[function]()
    with pytest.raises(TypeError, match=r"x must be a NumPy array, got torch\.Tensor"):
        getattr(F, function)(**arguments | {"x": torch.tensor(arguments["x"])})


# --- the upstream gradient -------------------------------------------------------------------------------------------

BACKWARD = [name for name in GOOD if name != "cross_entropy"]


def with_cache(function):
    y, cache = getattr(F, function)(**GOOD[function]())
    return y, cache, getattr(F, f"{function}_backward")


@pytest.mark.parametrize("function", BACKWARD)
def test_bad_upstream_gradient(function):
    y, cache, backward = with_cache(function)
    for shape in ((), y.shape[1:], (1, *y.shape[1:]), (*y.shape[:-1], 1), (*y.shape, 1), y.shape[::-1]):
        with pytest.raises(ValueError) as raised:
            backward(np.ones(shape), cache)
        assert f"grad_y has shape {shape}, expected {y.shape}" in str(raised.value)
    for wrong in (y.tolist(), None, 1.0, Tensor()):
        with pytest.raises(TypeError, match="grad_y must be a NumPy array"):
            backward(wrong, cache)
    with pytest.raises(TypeError, match="grad_y must be float64 like the output, got float32"):
        backward(np.ones(y.shape, np.float32), cache)
    with pytest.raises(TypeError, match="grad_y must be a float16, float32 or float64 array, got dtype int64"):
        backward(np.ones(y.shape, np.int64), cache)
    with pytest.raises(TypeError, match="grad_y must be an array without a mask"):
        backward(np.ma.masked_less(y, 0), cache)


def test_bad_upstream_gradient_of_cross_entropy():
    arguments = GOOD["cross_entropy"]()
    for reduction, shapes in (("mean", [(1,), (4,), (4, 3)]), ("sum", [(1,)]), ("none", [(1,), (3,), (4, 1), (4, 3)])):
        _, cache = F.cross_entropy(**arguments | {"reduction": reduction})
        for shape in shapes:
            with pytest.raises(ValueError) as raised:
                F.cross_entropy_backward(np.ones(shape), cache)
            assert f"grad_y has shape {shape}, expected {(4,) if reduction == 'none' else ()}" in str(raised.value)
    for wrong in (np.ones(4, np.float32), np.ones(4, int), np.ma.ones(4), [1.0] * 4, "a", None):
        with pytest.raises(TypeError, match="grad_y must be"):
            F.cross_entropy_backward(wrong, cache)
    with pytest.raises(TypeError, match="cache must be the cache that cross_entropy returned, got NoneType"):
        F.cross_entropy_backward(1.0)


@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("function", BACKWARD)
def test_the_upstream_gradient_has_the_dtype_of_the_output(function, dtype, given):
    """Also where float16 is computed in float32, on either side."""
    arguments = {n: v.astype(dtype) if isinstance(v, np.ndarray) else v for n, v in GOOD[function]().items()}
    y, cache = getattr(F, function)(**arguments)
    backward, grad_y = getattr(F, f"{function}_backward"), np.ones(y.shape, given)
    if dtype is given:
        grads = backward(grad_y, cache)
        grads = grads if isinstance(grads, tuple) else (grads,)
        assert {grad.dtype for grad in grads if grad is not None} == {np.dtype(dtype)}
        return
    says = f"grad_y must be {np.dtype(dtype)} like the output, got {np.dtype(given)}"
    with pytest.raises(TypeError, match=says):
        backward(grad_y, cache)


@pytest.mark.parametrize("dtype", [np.float16, np.float64], ids=["float16", "float64"])
@pytest.mark.parametrize("function", GOOD)
def test_a_cache_of_something_else(function, dtype):
    """Also one of another function that holds the same things, and (y, cache) as the function returns it."""
    arguments = {
        name: {k: v.astype(dtype) if isinstance(v, np.ndarray) and k != "target" else v for k, v in make().items()}
        for name, make in GOOD.items()
    }
    results = {name: getattr(F, name)(**arguments[name]) for name in GOOD}
    y, cache = results[function]
    others = [cache for name, (_, cache) in results.items() if name != function]
    backward = getattr(F, f"{function}_backward")
    for wrong in (*others, results[function], tuple(cache), None, y):
        with pytest.raises(TypeError) as raised:
            backward(y, wrong)
        assert str(raised.value) == f"cache must be the cache that {function} returned, got {type(wrong).__name__}"
    backward(y, cache)


# --- what the signatures promise -------------------------------------------------------------------------------------

SIGNATURES = {
    "batch_norm": "x running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-05",
    "instance_norm": "x running_mean=None running_var=None weight=None bias=None use_input_stats=True momentum=0.1 "
    "eps=1e-05",
    "layer_norm": "x normalized_shape weight=None bias=None eps=1e-05",
    "rms_norm": "x normalized_shape weight=None eps=None",
    "group_norm": "x num_groups weight=None bias=None eps=1e-05",
    "linear": "x weight bias=None",
    "conv2d": "x weight bias=None stride=1 padding=0",
    "max_pool2d": "x kernel_size stride=None padding=0",
    "cross_entropy": "x target reduction='mean'",
    "softmax": "x dim=-1",
}


@pytest.mark.parametrize("function", SIGNATURES)
def test_names_order_and_defaults(function):
    parameters = inspect.signature(getattr(F, function)).parameters.values()
    ours = " ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)
    assert ours == SIGNATURES[function]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_wrong_calls_are_python_errors_for_every_dtype(dtype):
    x = X.astype(dtype)
    with pytest.raises(TypeError, match="positional argument"):
        F.relu(x, 1)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        F.relu(x, slope=1)
    with pytest.raises(TypeError, match="multiple values for argument 'kernel_size'"):
        F.max_pool2d(x, 2, kernel_size=2)
    with pytest.raises(TypeError, match="missing"):
        F.max_pool2d(x)
    with pytest.raises(TypeError, match="missing"):
        F.relu()
