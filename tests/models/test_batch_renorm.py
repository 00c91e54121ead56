"""Batch Renormalization: batch normalization at its start, the evaluation mode where nothing is clipped, constants."""

from __future__ import annotations

import pytest

from tests.references import torch

if torch is None:
    pytest.skip("torch is not installed", allow_module_level=True)

from bnbook.models.torch_statistics import BatchRenorm

SHAPES = [(12, 5), (7, 5, 3, 4)]


def layer_and_data(shape, **options):
    layer = BatchRenorm(5, **options).double()
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.normal_()
        layer.running_mean.normal_()
        layer.running_std.uniform_(0.5, 2)
    x = (torch.randn(shape, dtype=torch.float64) * 2 + 0.5).requires_grad_()
    return layer, x, torch.randn(shape, dtype=torch.float64)


def gradients(y, layer, x, upstream):
    return torch.autograd.grad(y, (x, layer.weight, layer.bias), upstream)


def spread(values, x):
    """A value per channel, in the shape of x."""
    return values.view(-1, *[1] * (x.ndim - 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_begins_as_batch_normalization_forward_and_backward(shape):
    torch.manual_seed(1)
    layer, x, upstream = layer_and_data(shape, warmup=1)
    reference = torch.nn.functional.batch_norm(x, None, None, layer.weight, layer.bias, training=True)
    y = layer(x)
    torch.testing.assert_close(y, reference)
    pairs = zip(gradients(y, layer, x, upstream), gradients(reference, layer, x, upstream), strict=True)
    for got, right in pairs:
        torch.testing.assert_close(got, right)
    assert not torch.allclose(layer(x), reference)  # the warm-up is over


@pytest.mark.parametrize("shape", SHAPES)
def test_unclipped_it_gives_in_training_what_it_gives_in_evaluation(shape):
    torch.manual_seed(2)
    layer, x, _ = layer_and_data(shape, r_max=1e6, d_max=1e6)
    torch.testing.assert_close(layer.eval()(x), layer.train()(x))  # in training last: it moves the statistics
    layer.r_max = 1.01
    assert not torch.allclose(layer.eval()(x), layer.train()(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_algorithm_of_the_paper_with_r_and_d_as_constants(shape):
    torch.manual_seed(3)
    layer, x, upstream = layer_and_data(shape, momentum=0.2, r_max=1.3, d_max=0.4)
    axes = (0, *range(2, x.ndim))
    mu = x.mean(axes, keepdim=True)
    sigma = ((x - mu).square().mean(axes, keepdim=True) + layer.eps).sqrt()
    with torch.no_grad():  # some of r and d are clipped on either side, others are not
        layer.running_std.copy_(sigma.flatten() * torch.tensor([0.5, 0.9, 1.0, 1.1, 2.0]))
        layer.running_mean.copy_(mu.flatten() + layer.running_std * torch.tensor([-2.0, -0.1, 0.0, 0.2, 2.0]))
    means, stds = layer.running_mean.clone(), layer.running_std.clone()
    r = (sigma / spread(stds, x)).detach().clamp(1 / 1.3, 1.3)
    d = ((mu - spread(means, x)) / spread(stds, x)).detach().clamp(-0.4, 0.4)
    expected = spread(layer.weight, x) * ((x - mu) / sigma * r + d) + spread(layer.bias, x)
    y = layer(x)
    torch.testing.assert_close(y, expected)
    pairs = zip(gradients(y, layer, x, upstream), gradients(expected, layer, x, upstream), strict=True)
    for got, right in pairs:
        torch.testing.assert_close(got, right)
    torch.testing.assert_close(layer.running_mean, 0.8 * means + 0.2 * mu.flatten().detach())
    torch.testing.assert_close(layer.running_std, 0.8 * stds + 0.2 * sigma.flatten().detach())


def test_the_limits_stay_at_those_of_batch_normalization_then_grow_then_stay():
    layer, limits = BatchRenorm(2, r_max=3, d_max=5, warmup=2, ramp=3), []
    for _ in range(8):
        limits.append(layer.limits())
        layer(torch.randn(4, 2))
    r_max, d_max = zip(*limits, strict=True)
    assert r_max == (1, 1, 1.5, 2, 2.5, 3, 3, 3) and d_max == (0, 0, 1.25, 2.5, 3.75, 5, 5, 5)


def test_its_statistics_are_saved_and_loaded():
    torch.manual_seed(4)
    layer, x, _ = layer_and_data((12, 5), warmup=3)
    layer(x)
    other = BatchRenorm(5, warmup=3).double()
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), layer(x))
    torch.testing.assert_close(other.eval()(x), layer.eval()(x))
