"""What must hold for any input (hypothesis), without a reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bnbook import functional as F
from bnbook import nn
from bnbook.textbook import channel_axes, per_channel
from tests.references import assert_agrees

seeds = st.integers(0, 2**32 - 1)
eps_values = st.sampled_from([1e-5, 1e-3, 0.5])


@st.composite
def batches(draw, min_values=3, min_ndim=2):
    """x (N, C, *) with at least `min_values` values per channel, no two axes longer than 6."""
    ndim = draw(st.integers(min_ndim, 5))
    shape = tuple(draw(st.integers(1, 6)) for _ in range(ndim))
    if shape[0] * int(np.prod(shape[2:])) < min_values:
        shape = (min_values + 1, *shape[1:])
    rng = np.random.default_rng(draw(seeds))
    return rng.normal(draw(st.floats(-3, 3)), draw(st.floats(0.3, 3)), shape), rng


def train(x, weight=None, bias=None, eps=1e-5):
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


@given(batches(), eps_values)
def test_output_has_mean_beta_and_variance_gamma_squared_one_minus_rho(drawn, eps):
    x, rng = drawn
    weight, bias = rng.uniform(-2, 2, x.shape[1]), rng.normal(size=x.shape[1])
    y, _ = train(x, weight, bias, eps)
    var = x.var(channel_axes(x))
    np.testing.assert_allclose(y.mean(channel_axes(x)), bias, atol=1e-12)
    np.testing.assert_allclose(y.var(channel_axes(x)), weight**2 * (1 - eps / (var + eps)), atol=1e-12)


@given(batches(), eps_values, st.floats(-100, 100))
def test_a_shift_changes_nothing(drawn, eps, shift):
    x, rng = drawn
    g = rng.normal(size=x.shape)
    (y, cache), (shifted, shifted_cache) = train(x, eps=eps), train(x + shift, eps=eps)
    assert_agrees(shifted, y, 1e-10, "y", 1.0)
    grad_x, shifted_grad = F.batch_norm_backward(g, cache)[0], F.batch_norm_backward(g, shifted_cache)[0]
    assert_agrees(shifted_grad, grad_x, 1e-9, "grad_x", float(cache.inv_std.max() * np.abs(g).max()))


@given(batches(), st.floats(0.01, 100))
def test_a_positive_scale_changes_nothing_without_eps_and_a_negative_one_flips(drawn, scale):
    x, rng = drawn
    g = rng.normal(size=x.shape)
    (y, cache), (scaled, scaled_cache) = train(x, eps=1e-300), train(x * scale, eps=1e-300)
    assert_agrees(scaled, y, 1e-11, "y")
    assert_agrees(train(-scale * x, eps=1e-300)[0], -y, 1e-11, "y of the flipped")
    assert_agrees(train(x * scale, eps=1e-3 * scale**2)[0], train(x, eps=1e-3)[0], 1e-11, "y with ε scaled along")
    grad_x, scaled_grad = F.batch_norm_backward(g, cache)[0], F.batch_norm_backward(g, scaled_cache)[0]
    assert_agrees(scaled_grad * scale, grad_x, 1e-9, "grad_x", float(cache.inv_std.max() * np.abs(g).max()))


@given(batches(), eps_values)
def test_gradients_sum_to_zero_and_x_hat_keeps_rho(drawn, eps):
    """Σ ∂L/∂x = 0 and Σ x̂ ∂L/∂x = γ/√(σ²+ε) · ρ · Σ g x̂, for every ε."""
    x, rng = drawn
    weight, g = rng.uniform(0.5, 2, x.shape[1]), rng.normal(size=x.shape)
    _, cache = train(x, weight, eps=eps)
    grad_x, grad_weight, _ = F.batch_norm_backward(g, cache)
    scale = np.abs(weight * cache.inv_std.ravel()).max() * np.abs(g).sum()
    rho = eps / (x.var(channel_axes(x)) + eps)
    assert np.abs(grad_x.sum(channel_axes(x))).max() <= 1e-12 * scale
    expected = weight * cache.inv_std.ravel() * rho * grad_weight
    assert np.abs((grad_x * cache.x_hat).sum(channel_axes(x)) - expected).max() <= 1e-11 * scale


@given(batches(), st.booleans(), st.floats(-3, 3))
def test_backward_is_linear_in_the_upstream_gradient(drawn, training, factor):
    x, rng = drawn
    channels = x.shape[1]
    mean, var, weight, bias = rng.normal(size=channels), *rng.uniform(0.5, 2, (3, channels))
    g, h = rng.normal(size=x.shape), rng.normal(size=x.shape)
    _, cache = F.batch_norm(x, mean, var, weight, bias, training)
    for ours, a, b in zip(*(F.batch_norm_backward(v, cache) for v in (g + factor * h, g, h)), strict=True):
        assert_agrees(ours, a + factor * b, 1e-10, "a gradient", 10 * float(cache.inv_std.max() * weight.max()))


@given(batches(min_values=1), eps_values)
def test_evaluation_is_affine_in_every_element_and_diagonal_backward(drawn, eps):
    x, rng = drawn
    channels = x.shape[1]
    mean, var, weight, bias = rng.normal(size=channels), *rng.uniform(0.5, 2, (3, channels))
    y, cache = F.batch_norm(x, mean, var, weight, bias, eps=eps)
    slope = per_channel(weight / np.sqrt(var + eps), x)
    np.testing.assert_allclose(
        y, slope * x + per_channel(bias, x) - slope * per_channel(mean, x), rtol=1e-11, atol=1e-11
    )
    g = rng.normal(size=x.shape)
    np.testing.assert_allclose(F.batch_norm_backward(g, cache)[0], slope * g, rtol=1e-12)
    np.testing.assert_allclose(F.batch_norm(x[:1], mean, var, weight, bias, eps=eps)[0], y[:1], rtol=1e-12)


@given(batches(), st.booleans())
def test_a_permuted_batch_gives_permuted_results(drawn, training):
    x, rng = drawn
    channels = x.shape[1]
    mean, var, weight, bias = rng.normal(size=channels), *rng.uniform(0.5, 2, (3, channels))
    g, order = rng.normal(size=x.shape), rng.permutation(len(x))
    stats, other_stats = (mean.copy(), var.copy()), (mean.copy(), var.copy())
    y, cache = F.batch_norm(x, *stats, weight, bias, training)
    y2, cache2 = F.batch_norm(x[order], *other_stats, weight, bias, training)
    assert_agrees(y2, y[order], 1e-12, "y")
    (a, *rest), (b, *rest2) = F.batch_norm_backward(g, cache), F.batch_norm_backward(g[order], cache2)
    scale = float(cache.inv_std.max() * weight.max() * np.abs(g).max())
    assert_agrees(b, a[order], 1e-10, "grad_x", scale)
    for ours, expected in zip((*rest2, *other_stats), (*rest, *stats), strict=True):
        assert_agrees(ours, expected, 1e-11, "a gradient or statistic", scale)


@given(batches(), eps_values)
def test_x_hat_is_bounded(drawn, eps):
    x, _ = drawn
    y, _ = train(x, eps=eps)
    m = x.size // x.shape[1]
    assert np.abs(y).max() <= np.sqrt(m - 1) * (1 + 1e-12)


@given(batches(min_values=2), st.lists(st.integers(2, 4), min_size=1, max_size=4))
def test_the_running_variance_of_momentum_none_is_the_average(drawn, sizes):
    x, rng = drawn
    layer = nn.BatchNorm1d(x.shape[1], momentum=None, dtype=np.float64)
    chunks = [rng.normal(size=(n, x.shape[1])) for n in sizes]
    for chunk in chunks:
        layer(chunk)
    np.testing.assert_allclose(layer.running_mean, np.mean([c.mean(0) for c in chunks], 0), atol=1e-12)
    np.testing.assert_allclose(
        layer.running_var, np.mean([c.var(0, ddof=1) for c in chunks], 0), rtol=1e-11, atol=1e-13
    )


@given(batches(min_ndim=3), eps_values)
def test_the_relatives_are_related(drawn, eps):
    """Group normalization with G = C is instance normalization, with G = 1 and equal γ layer normalization."""
    x, rng = drawn
    if np.prod(x.shape[2:]) == 1:
        x = rng.normal(size=(*x.shape[:2], 3))
    channels = x.shape[1]
    weight, bias, g = rng.normal(size=channels), rng.normal(size=channels), rng.normal(size=x.shape)
    y, cache = F.group_norm(x, channels, weight, bias, eps)
    y2, cache2 = F.instance_norm(x, None, None, weight, bias, eps=eps)
    scale = float(np.abs(cache.inv_std).max() * np.abs(weight).max() * np.abs(g).max())
    assert_agrees(y, y2, 1e-11, "y")
    for a, b in zip(F.group_norm_backward(g, cache), F.instance_norm_backward(g, cache2), strict=True):
        assert_agrees(a, b, 1e-10, "group and instance", scale)
    spread = [np.broadcast_to(per_channel(v, x)[0], x.shape[1:]).copy() for v in (weight, bias)]
    y, cache = F.group_norm(x, 1, weight, bias, eps)
    y2, cache2 = F.layer_norm(x, x.shape[1:], *spread, eps)
    assert_agrees(y, y2, 1e-11, "y")
    a, b = F.group_norm_backward(g, cache), F.layer_norm_backward(g, cache2)
    assert_agrees(a[0], b[0], 1e-10, "group and layer", scale)
    positions = tuple(range(1, x.ndim - 1))
    for ours, theirs in zip(a[1:], b[1:], strict=True):
        assert_agrees(ours, theirs.sum(positions), 1e-10, "a parameter of group and layer", scale)
    # instance normalization is batch normalization of the channels of all images
    wide = x.reshape(1, -1, *x.shape[2:])
    assert_agrees(F.instance_norm(x, eps=eps)[0].reshape(wide.shape), train(wide, eps=eps)[0], 1e-11, "instance, batch")
    # RMS normalization of centred rows is layer normalization
    rows = x.reshape(len(x), -1)
    centred = rows - rows.mean(1, keepdims=True)
    assert_agrees(
        F.rms_norm(centred, rows.shape[1], eps=eps)[0], F.layer_norm(rows, rows.shape[1], eps=eps)[0], 1e-10, "rms"
    )


@given(seeds, st.integers(1, 5), st.integers(1, 6), st.floats(-50, 50))
def test_softmax_sums_to_one_and_forgets_a_shift(seed, n, classes, shift):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(0, 3, (n, classes)), rng.normal(size=(n, classes))
    y, cache = F.softmax(x)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-14)
    assert (y > 0).all()
    np.testing.assert_allclose(F.softmax(x + shift)[0], y, rtol=1e-11)
    np.testing.assert_allclose(F.softmax_backward(g, cache).sum(1), 0, atol=1e-14)
    np.testing.assert_allclose(F.softmax_backward(g + shift, cache), F.softmax_backward(g, cache), atol=1e-12)


@given(seeds, st.integers(1, 5), st.integers(1, 6))
def test_cross_entropy_is_the_log_of_softmax(seed, n, classes):
    rng = np.random.default_rng(seed)
    x, target = rng.normal(0, 3, (n, classes)), rng.integers(0, classes, n)
    losses, _ = F.cross_entropy(x, target, reduction="none")
    np.testing.assert_allclose(losses, -np.log(F.softmax(x)[0][np.arange(n), target]), atol=1e-12)
    assert (losses >= 0).all()
    mean, cache = F.cross_entropy(x, target)
    total, _ = F.cross_entropy(x, target, reduction="sum")
    np.testing.assert_allclose([mean * n, total], losses.sum(), atol=1e-12)
    np.testing.assert_allclose(F.cross_entropy_backward(cache=cache).sum(1), 0, atol=1e-14)


@st.composite
def windows(draw):
    """An image size, kernel, stride and padding that fit."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = draw(st.tuples(st.integers(0, kernel[0] // 2), st.integers(0, kernel[1] // 2)))
    size = tuple(draw(st.integers(k, k + 5)) for k in kernel)
    return size, kernel, draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), padding


@given(windows(), seeds)
def test_pooling_and_convolution_over_any_window(window, seed):
    from tests.functional.test_convolution import brute_force_convolution
    from tests.functional.test_pooling import brute_force_pooling

    size, kernel, stride, padding = window
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 1, (2, 3, *size)).astype(float)
    y, cache = F.max_pool2d(x, kernel, stride, padding)
    expected, where = brute_force_pooling(x, kernel, stride, padding)
    np.testing.assert_array_equal(y, expected)
    g, grad_x = rng.normal(size=y.shape), np.zeros(x.shape)
    for output, source in where.items():
        grad_x[source] += g[output]
    np.testing.assert_allclose(F.max_pool2d_backward(g, cache), grad_x, atol=1e-13)
    x, weight, bias = rng.normal(size=x.shape), rng.normal(size=(2, 3, *kernel)), rng.normal(size=2)
    y, cache = F.conv2d(x, weight, bias, stride, padding)
    assert_agrees(y, brute_force_convolution(x, weight, bias, stride, padding), 1e-12, "y", 1.0)
    # a linear map and its transpose: ⟨g, conv(x)⟩ = ⟨conv'(g), x⟩, for the input and for the weight
    g = rng.normal(size=y.shape)
    grad_x, grad_weight, grad_bias = F.conv2d_backward(g, cache)
    linear_part = (g * (y - bias[:, None, None])).sum()
    np.testing.assert_allclose([(grad_x * x).sum(), (grad_weight * weight).sum()], linear_part, atol=1e-10)
    np.testing.assert_allclose(grad_bias, g.sum((0, 2, 3)), atol=1e-11)


@given(st.floats(-700, 700))
@example(0.0)
def test_sigmoid_and_tanh_are_one_function(v):
    x = np.array([v])
    np.testing.assert_allclose(2 * F.sigmoid(2 * x)[0] - 1, F.tanh(x)[0], atol=1e-15)
    np.testing.assert_allclose(F.sigmoid(x)[0] + F.sigmoid(-x)[0], 1, rtol=1e-15)
    np.testing.assert_array_equal(F.relu(x)[0] - F.relu(-x)[0], x)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "group_norm", "instance_norm"])
def test_the_input_gradient_is_orthogonal_to_ones_for_every_centred_relative(name):
    rng = np.random.default_rng(5)
    x, g = rng.normal(size=(4, 6, 5)), rng.normal(size=(4, 6, 5))
    _y, cache = {
        "batch_norm": lambda: train(x, eps=0.1),
        "layer_norm": lambda: F.layer_norm(x, (6, 5), eps=0.1),
        "group_norm": lambda: F.group_norm(x, 2, eps=0.1),
        "instance_norm": lambda: F.instance_norm(x, eps=0.1),
    }[name]()
    grad_x = getattr(F, f"{name}_backward")(g, cache)[0].reshape(cache.xc.shape)
    np.testing.assert_allclose(grad_x.sum(cache.axes), 0, atol=1e-13)
