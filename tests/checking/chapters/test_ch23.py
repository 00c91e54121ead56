"""The checkers of chapter 23 accept the solutions and reject what only looks like one."""

import numpy as np
import pytest

from bnbook.checking import check
from bnbook.checking.chapters.ch23 import FAULTS, fewest_bits, folded, transposed_scaled
from bnbook.interop import into_previous, scale_and_shift


def fold(weight, bias, mean, var, gamma, beta, eps, *, std=None, own=lambda b, a: a * b, mean_factor=None, add=1):
    a = gamma / (np.sqrt(var + eps) if std is None else std(var, eps))
    shift = add * beta - (a if mean_factor is None else mean_factor) * mean
    return weight * a.reshape(-1, 1, 1, 1), own(bias, a) + shift


def by_interop(weight, bias, mean, var, gamma, beta, eps):
    return into_previous(weight, bias, *scale_and_shift(mean, var, gamma, beta, eps))


def pad(mean, var, gamma, beta, eps):
    return mean - beta * np.sqrt(var + eps) / gamma


def transposed_by_loop(weight, scale, groups):
    weight = weight.copy()
    ins, outs = len(weight) // groups, weight.shape[1]
    for i in range(len(weight)):
        for o in range(outs):
            weight[i, o] *= scale[i // ins * outs + o]
    return weight


def diagnose(fold, *, bias=2.0, var=4e-3, gamma=3.0, mean=1.0, weight=((1.0, 2.0), (3.0, 4.0)), scales=(1.0, 2.0)):
    """Compare with every possible answer on one layer."""
    weight, ones = np.array(weight), np.array(scales)
    given = weight, bias * ones, mean * ones, var * ones, gamma * ones, ones
    got = fold(*given)
    for fault in FAULTS:
        if all(np.allclose(x, y, rtol=1e-9, atol=1e-12) for x, y in zip(got, folded(fault, *given), strict=True)):
            return fault
    return None


RIGHT = {
    "ch23.fold": [fold, by_interop],
    "ch23.pad": pad,
    "ch23.transposed": [
        transposed_scaled,
        transposed_by_loop,
        lambda w, a, groups: into_previous(w, None, a, 0 * a, transposed=True, groups=groups)[0],
    ],
    "ch23.bits": fewest_bits,
    "ch23.diagnose": diagnose,
}

WRONG = {
    "ch23.fold": {
        "deleted": lambda w, b, *rest: (w, b),
        "bias forgotten": lambda *given: fold(*given, own=lambda b, a: 0 * b),
        "bias not scaled": lambda *given: fold(*given, own=lambda b, a: b),
        "mean not scaled": lambda *given: fold(*given, mean_factor=1.0),
        "mean forgotten": lambda *given: fold(*given, mean_factor=0.0),
        "no beta": lambda *given: fold(*given, add=0),
        "variance": lambda *given: fold(*given, std=lambda var, eps: var + eps),
        "eps outside": lambda *given: fold(*given, std=lambda var, eps: np.sqrt(var) + eps),
        "no eps": lambda *given: fold(*given, std=lambda var, eps: np.sqrt(var)),
        "weight alone": lambda *given: fold(*given)[0],
    },
    "ch23.pad": {
        "zero": lambda mean, *rest: 0 * mean,
        "mean": lambda mean, *rest: mean,
        "of a zero": lambda mean, var, gamma, beta, eps: beta - gamma * mean / np.sqrt(var + eps),
        "sign": lambda mean, var, gamma, beta, eps: mean + beta * np.sqrt(var + eps) / gamma,
        "no eps": lambda mean, var, gamma, beta, eps: mean - beta * np.sqrt(var) / gamma,
    },
    "ch23.transposed": {
        "nothing": lambda w, a, groups: w,
        "axis 0": lambda w, a, groups: w * np.resize(a, len(w)).reshape(-1, 1, 1, 1),
        "first group for all": lambda w, a, groups: w * a[: w.shape[1]].reshape(1, -1, 1, 1),
        "strided": lambda w, a, groups: (
            w
            * np.resize([a[i % groups * w.shape[1] :][: w.shape[1]] for i in range(len(w))], w.shape[:2])[
                ..., None, None
            ]
        ),
    },
    "ch23.bits": {
        "always eight": lambda w, error, per_channel: 8,
        "for all": lambda w, error, per_channel: fewest_bits(w, error, False),
        "for each": lambda w, error, per_channel: fewest_bits(w, error, True),
        "without sign": lambda w, error, per_channel: fewest_bits(w, error, per_channel) - 1,
        "absolute": lambda w, error, per_channel: int(np.ceil(np.log2(np.abs(w).max() / error))),
    },
    "ch23.diagnose": {
        **{f"always {fault}": lambda given, fault=fault: fault for fault in FAULTS},
        "without a bias": lambda given: diagnose(given, bias=0.0),
        "large variances": lambda given: diagnose(given, var=1e9),
        "gamma of one": lambda given: diagnose(given, gamma=1.0, scales=(1.0, 1.0)),
        "mean of zero": lambda given: diagnose(given, mean=0.0),
        "alike channels": lambda given: diagnose(given, scales=(1.0, 1.0)),
        "no name": lambda given: "wrong",
    },
}


def test_a_fresh_layer_shows_only_what_changes_the_scale():
    """What the chapter says of the test that most people write."""
    weight, bias = np.random.default_rng().normal(size=(3, 3)), np.zeros(3)
    fresh = np.zeros(3), np.ones(3), np.ones(3), np.zeros(3)
    right = folded("correct", weight, bias, *fresh)
    for fault in ("bias forgotten", "bias not scaled", "mean forgotten", "gamma forgotten", "input channels scaled"):
        for a, b in zip(folded(fault, weight, bias, *fresh), right, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_scaled_weights_are_those_of_torch(groups):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng()
    weight, scale, x = rng.normal(size=(4, 8 // groups, 2, 3)), rng.normal(size=8), rng.normal(size=(2, 4, 5, 5))
    whole, ours = (
        torch.nn.functional.conv_transpose2d(torch.tensor(x), torch.tensor(w), groups=groups).numpy()
        for w in (weight, transposed_scaled(weight, scale, groups))
    )
    np.testing.assert_allclose(ours, whole * scale.reshape(1, -1, 1, 1), atol=1e-12)


def test_mistakes_are_named():
    assert "own bias is forgotten" in check("ch23.fold", WRONG["ch23.fold"]["bias forgotten"]).message
    assert "inside of the root" in check("ch23.fold", WRONG["ch23.fold"]["eps outside"]).message
    assert "The mean becomes β" in check("ch23.pad", WRONG["ch23.pad"]["mean"]).message
    assert "one bit is the sign" in check("ch23.bits", WRONG["ch23.bits"]["without sign"]).message


def test_a_channel_of_zeros_has_no_rounding_error():
    weight = np.random.default_rng(0).normal(size=(3, 2, 3, 3))
    with_zeros = np.concatenate([weight, np.zeros((1, 2, 3, 3))])
    for per_channel in (False, True):
        assert fewest_bits(with_zeros, 0.01, per_channel) == fewest_bits(weight, 0.01, per_channel)
        assert fewest_bits(0 * weight, 0.01, per_channel) == 2
