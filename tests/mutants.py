"""The mistakes planted in the package: each with the test that notices it.

python -m tests.mutants            plants them one by one and prints the table
python -m tests.mutants -k axis    only those whose names contain a word
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from bnbook.checking.planting import Mutant, run, table

NORM = "tests/functional/test_normalization.py"
REDUCE = "tests/functional/test_reduce.py"
TEXTBOOK = "tests/test_textbook.py"
OPERATORS = "tests/functional/test_operators.py"
BATCH_NORM = "tests/functional/test_batch_norm.py"
RELATIVES = "tests/functional/test_relatives.py"
CONVOLUTION = "tests/functional/test_convolution.py"
POOLING = "tests/functional/test_pooling.py"
LINEAR = "tests/functional/test_linear.py"
ACTIVATION = "tests/functional/test_activation.py"
LOSS = "tests/functional/test_loss.py"
ERRORS = "tests/functional/test_errors.py"
MODULES = "tests/nn/test_modules.py"
LAYERS = "tests/nn/test_layers.py"
INTEROP = "tests/interop/test_errors.py"
KINDS = "tests/interop/test_kinds.py"
PROBES = "tests/probes/test_kinds_of_models.py"
SYNC = "tests/kernels/test_sync_batch_norm.py"
FOLDING = "tests/interop/test_folding.py"
SAME = "test_the_outputs_are_the_same_and_the_model_as_it_was"
REFUSED = "test_what_cannot_be_folded_is_refused_by_name"
FUSED = "tests/kernels/interpreted.py"
INTERPRETER = (("TRITON_INTERPRET", "1"),)
VERDICT, OUTCOME = "tests/experiments/engine/test_verdict.py", "test_the_outcome_of_every_interval_and_border"


def _n(
    name: str, old: str, new: str, test: str, why: str, module: str = "functional.batch_norm", environment: tuple = ()
) -> Mutant:
    return Mutant(name, module, old, new, test, why, environment)


def _textbook(case: str) -> str:
    return f"{NORM}::test_output_is_the_textbook_formula[float64-{case}]"


def _numeric(case: str) -> str:
    return f"{NORM}::test_gradients_are_the_numeric_ones[{case}]"


def _running(case: str) -> str:
    return f"{NORM}::test_running_statistics[0.37-float64-{case}]"


def _memory(case: str) -> str:
    return f"{NORM}::test_any_memory_is_read_kept_and_left_alone[{case}]"


MUTANTS = (
    # batch normalization, forward
    _n(
        "wrong axis",
        "    axes = (0, *range(2, x.ndim))  # all",
        "    axes = (0,)  # all",
        _textbook("batch_norm-training-4d"),
        "the statistics of a pixel instead of a channel: right for (N, C), wrong for images",
    ),
    _n(
        "variance over m - 1",
        "    return mean, total(axes, xc, xc) / m",
        "    return mean, total(axes, xc, xc) / max(m - 1, 1)",
        _textbook("batch_norm-training-3d"),
        "the unbiased variance where the batch is normalized",
        "functional._reduce",
    ),
    _n(
        "one-pass variance",
        "    np.subtract(x, _along(x, mean), out=xc)\n    return mean, total(axes, xc, xc) / m",
        "    var = np.square(x).sum(axes, keepdims=True) / m - mean.astype(x.dtype) ** 2\n"
        "    np.subtract(x, _along(x, mean), out=xc)\n"
        "    return mean, var",
        f"{NORM}::test_a_large_mean_takes_no_digits[batch_norm-float64]",
        "E[x²] − E[x]²: exact on paper, without digits where the mean is large",
        "functional._reduce",
    ),
    _n(
        "eps outside the root",
        "return 1 / np.sqrt(var.astype(np.float64) + eps)",
        "return 1 / (np.sqrt(var.astype(np.float64)) + eps)",
        _textbook("batch_norm-training-3d"),
        "as in Adam; invisible while ε is tiny",
        "functional._reduce",
    ),
    _n(
        "eps left out",
        "return 1 / np.sqrt(var.astype(np.float64) + eps)",
        "return 1 / np.sqrt(var.astype(np.float64) + 0 * eps)",
        _textbook("batch_norm-training-3d"),
        "invisible while ε is tiny",
        "functional._reduce",
    ),
    _n(
        "variance used as standard deviation",
        "return 1 / np.sqrt(var.astype(np.float64) + eps)",
        "return 1 / (var.astype(np.float64) + eps)",
        _textbook("batch_norm-training-3d"),
        "invisible for x of unit variance",
        "functional._reduce",
    ),
    _n(
        "beta before gamma",
        "        y += _along(x, bias)",
        "        y += _along(x, bias if weight is None else weight * bias)",
        _textbook("batch_norm-training-3d"),
        "γ(x̂ + β): the same while γ = 1 or β = 0",
        "functional._reduce",
    ),
    _n(
        "gamma left out of the output",
        "_along(x, scale if weight is None else weight * scale)",
        "_along(x, scale)",
        _textbook("batch_norm-training-3d"),
        "invisible at the initial γ = 1",
        "functional._reduce",
    ),
    _n(
        "input modified in place",
        "    xc = np.empty_like(x)\n",
        "    xc = x if x.flags.writeable else np.empty_like(x)\n",
        _memory("batch_norm-training-3d"),
        "saves memory and destroys what a skip connection still needs",
        "functional._reduce",
    ),
    _n(
        "memory order lost",
        "    y = np.empty_like(x if like is None else like)\n",
        "    y = np.empty(x.shape, x.dtype)\n",
        _memory("batch_norm-training-4d"),
        "right values, slow rows",
        "functional._reduce",
    ),
    _n(
        "gradient in the memory order of the upstream one",
        "scale_and_shift(grad_y, scale, like=xc)",
        "scale_and_shift(grad_y, scale)",
        f"{NORM}::test_the_input_gradient_lies_in_memory_as_the_input[batch_norm-evaluation-4d]",
        "right values; what comes before the layer runs over rows of two kinds",
    ),
    _n(
        "float64 leaks out",
        "    y = np.empty_like(x if like is None else like)\n",
        "    y = np.empty_like(x, np.float64)\n",
        f"{NORM}::test_no_float64_leaks_out[float32-batch_norm-training-3d]",
        "everything after it runs in float64, at half the speed",
        "functional._reduce",
    ),
    _n(
        "sums in float32 however rough",
        "    if x.dtype == np.float32 and (",
        "    if x.dtype == np.float16 and (",
        f"{NORM}::test_a_large_mean_takes_no_digits[batch_norm-float32]",
        "with a mean of a hundred σ the rounding of the mean shows in x − μ",
        "functional._reduce",
    ),
    _n(
        "one long float32 sum",
        "    while inner and prod(shape[a] for a in inner) > RUN:",
        "    while inner and prod(shape[a] for a in inner) > 10**9:",
        f"{BATCH_NORM}::test_float32_variance_survives_many_values_and_a_large_mean[contiguous-(1000000, 4)-5]",
        "the more values, the fewer digits: a float32 sum of a million of them",
        "functional._reduce",
    ),
    _n(
        "a part of the parameters for every thread",
        "if a is not None and a.ndim >= -axis and a.shape[axis] > 1 else a",
        "if a is not None and a.ndim == whole.ndim and a.shape[axis] > 1 else a",
        f"{REDUCE}::test_parts_of_every_normalization_give_the_bits_of_the_whole[layer_norm-2d-1-int]",
        "γ of layer normalization, one axis short of x, is cut along with the features or meets a part of them whole",
        "functional._reduce",
    ),
    _n(
        "the mean of a part",
        "    return in_parts(lambda xc, g: (total(axes, g), total(axes, g, xc)), axes, xc, g)",
        "    return in_parts(lambda xc, g: (total(axes, g), total(axes, g, xc)), (), xc, g)",
        f"{REDUCE}::test_parts_of_the_channels_give_the_bits_of_the_whole[(9, 7)-small mean-training]",
        "cut along an averaged axis, a thread knows the sums of its own part only",
        "functional._reduce",
    ),
    _n(
        "a channel between two threads forgotten",
        "slice(length * i // parts, length",
        "slice(length * i // parts + (i > 0), length",
        f"{REDUCE}::test_parts_of_the_channels_give_the_bits_of_the_whole[(9, 7)-small mean-training]",
        "invisible in one thread, and where arrays are small",
        "functional._reduce",
    ),
    # running statistics
    _n(
        "momentum reversed",
        "        running_mean[...] = (1 - momentum) * running_mean + momentum * mean.ravel()",
        "        running_mean[...] = momentum * running_mean + (1 - momentum) * mean.ravel()",
        _running("batch_norm-training-3d"),
        "momentum as the weight of the old value, as in TensorFlow",
    ),
    _n(
        "biased running variance",
        "momentum * (var.ravel() * (m / (m - 1)))",
        "momentum * var.ravel()",
        _running("batch_norm-training-3d"),
        "as in Keras",
    ),
    _n(
        "running statistics rebound",
        "        running_mean[...] = (1",
        "        running_mean = (1",
        _running("batch_norm-training-3d"),
        "a new array in a local name: nothing is updated in place",
    ),
    _n(
        "running mean of the shifted values",
        "update(running_mean, running_var, mean, var, count(x, axes), momentum)",
        "update(running_mean, running_var, xc.mean(axes), var, count(x, axes), momentum)",
        _running("batch_norm-training-3d"),
        "x overwritten by x − μ before its mean was kept",
    ),
    _n(
        "statistics updated in evaluation",
        "        xc = minus(x, mean)\n",
        "        xc = minus(x, mean)\n"
        "        update(running_mean, running_var, x.mean(axes), var, count(x, axes), 0.1)\n",
        _running("batch_norm-evaluation-3d"),
        "evaluation then depends on what was evaluated before",
    ),
    _n(
        "evaluation by the batch",
        "    axes = (0, *range(2, x.ndim))  # all",
        "    training = training or x.shape[0] > 1\n    axes = (0, *range(2, x.ndim))  # all",
        _textbook("batch_norm-evaluation-3d"),
        "a forgotten eval()",
    ),
    _n(
        "an empty batch spoils the statistics",
        "        if running_mean is not None and x.size > 0:\n"
        "            update(running_mean, running_var, mean, var, count(x, axes), momentum)",
        "        if running_mean is not None:\n"
        "            update(running_mean, running_var, mean, var, count(x, axes) + 1, momentum)",
        f"{NORM}::test_empty_batch[batch_norm-training-3d]",
        "the last, empty batch of a data set moves the running mean to 0",
    ),
    _n(
        "instance statistics of the batch",
        "mean.mean(0), var.mean(0), count(x, axes), momentum",
        "mean.mean(0), x.var((0, *axes)), count(x, axes), momentum",
        _running("instance_norm-training-3d"),
        "instance normalization keeps the average of the images' variances",
        "functional.relatives",
    ),
    # batch normalization, backward
    _n(
        "path through the mean missing",
        "residual(scale, grad_y, sum_g / m, ",
        "residual(scale, grad_y, None, ",
        _numeric("batch_norm-training-3d"),
        "μ taken for a constant",
    ),
    _n(
        "path through the variance missing",
        "sum_g_xhat * inv_std / m, xc)",
        "0 * inv_std, xc)",
        _numeric("batch_norm-training-3d"),
        "σ² taken for a constant; invisible to an upstream gradient of ones",
    ),
    _n(
        "gamma missing in backward",
        "    scale = inv_std if weight is None else weight * inv_std  #",
        "    scale = inv_std  #",
        _numeric("batch_norm-training-3d"),
        "invisible at γ = 1",
    ),
    _n(
        "grad_weight without inv_std",
        "    sum_g_xhat = sum_g_xc * inv_std\n",
        "    sum_g_xhat = sum_g_xc\n",
        _numeric("batch_norm-training-3d"),
        "Σ g (x − μ) for Σ g x̂",
    ),
    _n(
        "gradient of beta averaged",
        "    grad_bias = sum_g.ravel()",
        "    grad_bias = (sum_g / m).ravel()",
        _numeric("batch_norm-training-3d"),
        "the mean over the batch is the loss's business",
    ),
    _n(
        "wrong sign of the variance's path",
        "    np.multiply(xc, _along(xc, -slope), out=out)",
        "    np.multiply(xc, _along(xc, slope), out=out)",
        _numeric("batch_norm-training-3d"),
        "",
        "functional._reduce",
    ),
    _n(
        "gradient divided by m - 1",
        "sum_g_xhat * inv_std / m, xc)",
        "sum_g_xhat * inv_std / (m - 1), xc)",
        _numeric("batch_norm-training-3d"),
        "Bessel's correction where it does not belong",
    ),
    _n(
        "evaluation differentiated as training",
        "    if cache.training:  # scale",
        "    if True:  # scale",
        _numeric("batch_norm-evaluation-3d"),
        "frozen statistics are constants: backward is diagonal",
    ),
    _n(
        "upstream gradient modified in place",
        "    out += g\n",
        "    out += g\n    g.flags.writeable and np.copyto(g, out)\n",
        _memory("batch_norm-training-3d"),
        "whoever still needs the upstream gradient reads another one",
        "functional._reduce",
    ),
    _n(
        "upstream gradient broadcast",
        "    check_grad(grad_y, xc.shape, xc.dtype)\n",
        "    grad_y = np.broadcast_to(grad_y, xc.shape)\n",
        f"{ERRORS}::test_bad_upstream_gradient",
        "a gradient of the wrong shape passes unseen",
    ),
    # the relatives
    _n(
        "groups of scattered channels",
        "    split = x.reshape(n, groups, channels // groups, *positions)",
        "    split = x.reshape(n, channels // groups, groups, *positions).swapaxes(1, 2)",
        _textbook("group_norm-4d-2"),
        "every G-th channel in one group instead of neighbours",
        "functional.relatives",
    ),
    _n(
        "group statistics over single channels",
        "    axes = tuple(range(2, split.ndim))\n",
        "    axes = tuple(range(3 if split.ndim > 3 else 2, split.ndim))\n",
        _textbook("group_norm-4d-2"),
        "that is instance normalization",
        "functional.relatives",
    ),
    _n(
        "group gradient without the batch",
        "(0, *range(3, cache.xc.ndim)))",
        "tuple(range(3, cache.xc.ndim)) or (0,))",
        _numeric("group_norm-3d-2"),
        "γ is shared over the images",
        "functional.relatives",
    ),
    _n(
        "gamma after the projection",
        "    h = grad_y if weight is None else scale_and_shift(grad_y, weight)\n",
        "    h = grad_y\n",
        _numeric("layer_norm-2d-1-int"),
        "layer normalization projects g γ, not g: γ differs within an example",
        "functional.relatives",
    ),
    _n(
        "layer path through the mean missing",
        "        mean_h = sum_h / m if cache.centered else None\n",
        "        mean_h = None\n",
        _numeric("layer_norm-2d-1-int"),
        "the mean taken for a constant in layer, group and instance normalization",
        "functional.relatives",
    ),
    _n(
        "rms path through a mean that is not there",
        "        mean_h = sum_h / m if cache.centered else None\n",
        "        mean_h = sum_h / m\n",
        _numeric("rms_norm-2d-1-int"),
        "the backward pass of layer normalization used for RMS normalization",
        "functional.relatives",
    ),
    _n(
        "rms of centred values",
        "inv_sqrt(total(axes, x, x) / count(x, axes), eps)",
        "inv_sqrt(x.astype(np.float64).var(axes, keepdims=True), eps)",
        _textbook("rms_norm-2d-1-int"),
        "RMS normalization does not subtract the mean",
        "functional.relatives",
    ),
    _n(
        "default eps of rms_norm",
        "    eps = float(np.finfo(x.dtype).eps) if eps is None else eps",
        "    eps = 1e-5 if eps is None else eps",
        f"{RELATIVES}::test_rms_norm_without_eps",
        "the default of layer_norm: visible only for tiny x",
        "functional.relatives",
    ),
    _n(
        "no check of the number of values",
        "        if m == 1:\n",
        "        if m < 0:\n",
        f"{ERRORS}::test_bad_arguments",
        "m − 1 = 0 divides, and the running variance is nan for ever",
        "functional._checks",
    ),
    _n(
        "running statistics changed before an error",
        "    check_batch_norm(x,",
        "    if training and running_mean is not None and running_mean.flags.writeable:\n"
        "        running_mean.fill(0)\n"
        "    check_batch_norm(x,",
        f"{ERRORS}::test_bad_arguments",
        "a call that was refused has changed the layer",
    ),
    _n(
        "mixed dtypes accepted",
        '@float_arrays("running_mean", "running_var", "weight", "bias")\ndef batch_norm(',
        '@float_arrays("running_mean", "running_var")\ndef batch_norm(',
        f"{ERRORS}::test_bad_arguments",
        "a float64 weight turns a float32 network into float64",
    ),
    # the clear version, with which all the others are compared
    _n(
        "textbook variance over m - 1",
        "x.var(channel_axes(x))",
        "x.var(channel_axes(x), ddof=1)",
        f"{TEXTBOOK}::test_the_one_batch_of_the_book",
        "the reference wrong as the code might be: then the comparison agrees",
        "textbook",
    ),
    _n(
        "textbook backward in evaluation as in training",
        "    if not training:\n        return scale * g",
        "    if False:\n        return scale * g",
        f"{TEXTBOOK}::test_gradients_are_the_numeric_ones[evaluation-(7, 3)]",
        "the reference differentiates constants",
        "textbook",
    ),
    # convolution and pooling
    _n(
        "kernel flipped",
        "    y = weight.reshape(filters, -1) @ columns",
        "    y = weight[:, :, ::-1, ::-1].reshape(filters, -1) @ columns",
        f"{CONVOLUTION}::test_conv2d_is_the_definition",
        "the convolution of signal processing",
        "functional.convolution",
    ),
    _n(
        "stride of the other axis",
        "        :, :, ::sh, ::sw\n",
        "        :, :, ::sw, ::sh\n",
        f"{CONVOLUTION}::test_conv2d_is_the_definition",
        "invisible while both strides are equal",
        "functional.convolution",
    ),
    _n(
        "stride ignored in the input gradient",
        "grad_x[:, u : u + sh * out_h : sh, v : v + sw * out_w : sw] += patches[:, u, v]",
        "grad_x[:, u : u + out_h, v : v + out_w] += patches[:, u, v]",
        f"{CONVOLUTION}::test_conv2d_gradients_are_the_numeric_ones",
        "invisible at stride 1",
        "functional.convolution",
    ),
    _n(
        "overlapping patches overwrite",
        "v : v + sw * out_w : sw] += patches[:, u, v]",
        "v : v + sw * out_w : sw] = patches[:, u, v]",
        f"{CONVOLUTION}::test_conv2d_gradients_are_the_numeric_ones",
        "a pixel in several patches gets the gradient of the last one",
        "functional.convolution",
    ),
    _n(
        "padding not cut off the gradient",
        "    grad_x = grad_x[:, ph : ph + height, pw : pw + width]\n    return",
        "    grad_x = grad_x[:, :height, :width]\n    return",
        f"{CONVOLUTION}::test_conv2d_gradients_are_the_numeric_ones",
        "the gradient of the image is shifted by the border",
        "functional.convolution",
    ),
    _n(
        "bias gradient of the first image",
        '    grad_bias = np.einsum("fp->f", g) if cache.has_bias else None',
        "    grad_bias = grad_y[0].sum((1, 2)) if cache.has_bias else None",
        f"{CONVOLUTION}::test_conv2d_gradients_are_the_numeric_ones",
        "the sum runs over the batch as well",
        "functional.convolution",
    ),
    _n(
        "pooling pads with zero",
        "    padded = pad(x, ph, pw, -np.inf)",
        "    padded = pad(x, ph, pw, 0)",
        f"{POOLING}::test_max_pool2d_is_the_definition",
        "invisible after ReLU, which leaves nothing below 0",
        "functional.pooling",
    ),
    _n(
        "ties go to the last",
        "is_larger: Callable = np.greater",
        "is_larger: Callable = np.greater_equal",
        f"{POOLING}::test_max_pool2d_is_the_definition",
        "after ReLU whole windows are 0: another pixel gets the gradient than in torch",
        "functional.pooling",
    ),
    _n(
        "overlapping windows overwrite",
        "        grad_x[_window(axis, i, count, stride)] += kept(g, beats[i - 1])\n",
        "        grad_x[_window(axis, i, count, stride)] = kept(g, beats[i - 1])\n",
        f"{POOLING}::test_max_pool2d_is_the_definition",
        "a pixel that wins twice gets one gradient",
        "functional.pooling",
    ),
    _n(
        "padding is as good as −∞",
        "[_window(axis, i, 1, 1)] = True",
        "[_window(axis, i, 1, 1)] |= False",
        f"{POOLING}::test_the_gradient_of_a_window_of_infinities_goes_to_its_first_value",
        "the gradient of a window of −∞ goes to the padding, where it is lost",
        "functional.pooling",
    ),
    _n(
        "pooling returns a view",
        'return y.copy(order="K") if kernel == 1 else y, beats',
        "return y, beats",
        f"{OPERATORS}::test_any_memory_is_read_and_left_alone",
        "what changes the output changes the input",
        "functional.pooling",
    ),
    _n(
        "the first nan of a window",
        "    return (value > y) | np.isnan(value)",
        "    return (value > y) | (np.isnan(value) & ~np.isnan(y))",
        f"{POOLING}::test_the_gradient_of_a_nan_goes_to_the_last_nan[two of a row]",
        "torch takes the last",
        "functional.pooling",
    ),
    # activations, the fully connected layer, the loss
    _n(
        "masks multiplied",
        "    np.multiply(g.view(integer), mask, out=out.view(integer))",
        "    np.multiply(g, mask, out=out)",
        f"{POOLING}::test_an_infinite_upstream_gradient_goes_to_the_maximum_alone",
        "∞ · 0 is nan: one exploding gradient spoils everything before it",
        "functional._mask",
    ),
    _n(
        "a mask that nobody reads",
        "    if isinstance(value, np.ma.MaskedArray):",
        "    if False:",
        f"{ERRORS}::test_bad_upstream_gradient[relu]",
        "what was masked out takes part in every sum",
        "functional._checks",
    ),
    _n(
        "nan stopped by relu",
        "kept(grad_y, cache.y != 0)",
        "kept(grad_y, cache.y > 0)",
        f"{ACTIVATION}::test_what_relu_stops_is_zero_whatever_comes_back[float32]",
        "a nan in the forward pass leaves no trace in the gradient, as it does in torch",
        "functional.activation",
    ),
    _n(
        "derivative of relu at zero",
        "return kept(grad_y, cache.y != 0)",
        "return kept(grad_y, cache.y >= 0)",
        f"{ACTIVATION}::test_relu_at_zero_has_the_derivative_zero",
        "everything passes",
        "functional.activation",
    ),
    _n(
        "softmax without the maximum",
        "y = np.exp(x - x.max(axis=dim, keepdims=True, initial=-np.inf))",
        "y = np.exp(x)",
        f"{ACTIVATION}::test_sigmoid_tanh_and_softmax_do_not_overflow",
        "overflows for logits above 88",
        "functional.activation",
    ),
    _n(
        "softmax of another axis in backward",
        "    return y * (grad_y - (grad_y * y).sum(axis=dim, keepdims=True))",
        "    return y * (grad_y - (grad_y * y).sum(axis=-1, keepdims=True))",
        f"{ACTIVATION}::test_softmax",
        "invisible for the default axis",
        "functional.activation",
    ),
    _n(
        "sigmoid's slope from the input",
        "return grad_y * cache.y * (1 - cache.y)",
        "return grad_y * cache.y * (1 + cache.y)",
        f"{ACTIVATION}::test_activation",
        "",
        "functional.activation",
    ),
    _n(
        "weight gradient transposed",
        "    grad_weight = g.T @ x.reshape(examples, in_features)",
        "    grad_weight = (x.reshape(examples, in_features).T @ g).reshape(weight.shape)",
        f"{LINEAR}::test_linear",
        "of the right shape, in the wrong order",
        "functional.linear",
    ),
    _n(
        "linear bias of the first example",
        "return grad_x, grad_weight, g.sum(0) if has_bias else None",
        "return grad_x, grad_weight, g[0] if has_bias else None",
        f"{LINEAR}::test_linear",
        "the sum over the batch forgotten",
        "functional.linear",
    ),
    _n(
        "loss summed, gradient averaged",
        '    if reduction == "mean":\n        g =',
        '    if reduction != "none":\n        g =',
        f"{LOSS}::test_cross_entropy",
        "invisible while only the mean is used",
        "functional.loss",
    ),
    _n(
        "gradient of the mean not averaged",
        "        g = g / max(target.size, 1)\n",
        "        g = g * 1.0\n",
        f"{LOSS}::test_cross_entropy",
        "the step size then depends on the batch size",
        "functional.loss",
    ),
    _n(
        "labels out of range accepted",
        "(target < 0) | (target >= x.shape[1])",
        "(target < -x.shape[1]) | (target >= x.shape[1])",
        f"{ERRORS}::test_bad_arguments",
        "label −1 counts from the end",
        "functional.loss",
    ),
    # layers
    _n(
        "batches not counted",
        "            self.num_batches_tracked += 1\n",
        "            pass\n",
        f"{LAYERS}::test_batches_are_counted_in_training_only",
        "momentum=None then remembers the last batch only",
        "nn.batchnorm",
    ),
    _n(
        "cumulative average off by one",
        "momentum = 1 / (int(self.num_batches_tracked) + 1) if track else 0.0",
        "momentum = 1 / max(int(self.num_batches_tracked), 1) if track else 0.0",
        f"{LAYERS}::test_momentum_none_is_the_plain_average_of_all_batches",
        "the first batch is forgotten",
        "nn.batchnorm",
    ),
    _n(
        "mode ignored by the layer",
        "training=self.training or self.running_mean is None",
        "training=True",
        f"{MODULES}::test_evaluation_changes_no_state_and_does_not_look_at_the_batch",
        "eval() has no effect",
        "nn.batchnorm",
    ),
    _n(
        "eps of the layer ignored",
        "            momentum=momentum,\n            eps=self.eps,",
        "            momentum=momentum,",
        _textbook("BatchNorm1d-batch_norm-training-2d"),
        "invisible at the default",
        "nn.batchnorm",
    ),
    _n(
        "weight and bias exchanged in backward",
        "        accumulate(self.weight, grad_weight)\n        accumulate(self.bias, grad_bias)",
        "        accumulate(self.weight, grad_bias)\n        accumulate(self.bias, grad_weight)",
        _numeric("BatchNorm1d-batch_norm-training-2d"),
        "both have the same shape",
        "nn.batchnorm",
    ),
    _n(
        "statistics of instance layers never used",
        "use_input_stats=self.training or not self.track_running_stats",
        "use_input_stats=True",
        _textbook("InstanceNorm1d-instance_norm-evaluation-3d"),
        "evaluation by the image's own statistics although others were tracked",
        "nn.normalization",
    ),
    _n(
        "unbatched input taken for a batch",
        "        unbatched = x.ndim == self.ndims[0]\n",
        "        unbatched = x.ndim == self.ndims[0] - 1\n",
        f"{LAYERS}::test_unbatched_instance_norm_is_a_batch_of_one",
        "(C, L) read as (N, C)",
        "nn.normalization",
    ),
    _n(
        "state dict shares memory",
        "return {name: value.copy() for name, value in self._state()}",
        "return {name: value for name, value in self._state()}",
        f"{MODULES}::test_a_state_dict_is_a_copy",
        "the saved best weights follow the training",
        "nn.module",
    ),
    _n(
        "missing keys ignored",
        "        if strict and (missing or unexpected):",
        "        if strict and unexpected:",
        f"{MODULES}::test_strict_loading_names_the_keys_and_changes_nothing",
        "half a model is loaded without a word",
        "nn.module",
    ),
    _n(
        "gradients overwritten",
        "parameter.grad = grad if parameter.grad is None else parameter.grad + grad",
        "parameter.grad = grad",
        f"{MODULES}::test_gradients_add_up_until_they_are_forgotten",
        "accumulation over two backward passes is lost",
        "nn.module",
    ),
    _n(
        "gradients never forgotten",
        "        for parameter in self.parameters():\n            parameter.grad = None\n",
        "        pass\n",
        f"{MODULES}::test_gradients_add_up_until_they_are_forgotten",
        "zero_grad() does nothing",
        "nn.module",
    ),
    _n(
        "mode stops at the first level",
        "        for _, module in self.named_modules():\n            module.training = bool(mode)\n",
        "        self.training = bool(mode)\n        for _, module in self.named_children():\n"
        "            module.training = bool(mode)\n",
        f"{MODULES}::test_modes_reach_every_module",
        "nested layers stay in training",
        "nn.module",
    ),
    _n(
        "backward in forward order",
        "        for layer in reversed(self):\n            grad_y",
        "        for layer in self:\n            grad_y",
        f"{MODULES}::test_gradients_add_up_until_they_are_forgotten",
        "",
        "nn.container",
    ),
    _n(
        "flatten in another order",
        "return x.reshape(x.shape[0], prod(x.shape[1:]))",
        "return np.moveaxis(x, 1, -1).reshape(x.shape[0], prod(x.shape[1:]))",
        f"{MODULES}::test_flatten_is_that_of_torch_for_any_memory",
        "channels last: weights from torch do not fit any more",
        "nn.container",
    ),
    _n(
        "float16 comes back as float32",
        "        return result.astype(np.float16)\n",
        "        return result\n",
        f"{NORM}::test_float16_is_computed_in_float32[batch_norm-training-3d]",
        "the next layer refuses it",
        "functional._checks",
    ),
    # what stands in two places
    _n(
        "tied weights found twice",
        "        if id(value) not in seen:\n",
        "        if True:\n",
        f"{MODULES}::test_what_is_tied_has_all_names_in_the_state_and_one_elsewhere",
        "the number of parameters is too large",
        "nn.module",
    ),
    _n(
        "tied weights updated twice",
        "self.params = list(dict.fromkeys(self.params))",
        "self.params = list(self.params)",
        f"{MODULES}::test_tied_weights_take_one_step[SGD-those of both layers]",
        "a step of twice the size",
        "optim",
    ),
    _n(
        "old state dicts refused",
        "        missing = [key for key in own if key not in state_dict and key not in may_be_missing]\n",
        "        missing = [key for key in own if key not in state_dict]\n",
        f"{MODULES}::test_old_state_dicts_have_no_count_of_batches",
        "torch loads them",
        "nn.module",
    ),
    # between the frameworks
    _n(
        "a class known by what it is made of",
        "    return None if changed else known[base]\n",
        "    return known[base]\n",
        f"{KINDS}::test_what_only_has_the_name_is_refused[a convolution that standardizes]",
        "its own forward computes something else",
        "interop.layers",
    ),
    _n(
        "settings before arrays",
        "    before = target.arrays()\n    arrays = _fitting(",
        "    before = target.arrays()\n"
        '    target.set({} if settings == "keep" else _settings(pairs, target.layers, settings == "copy"))\n'
        "    arrays = _fitting(",
        f"{INTEROP}::test_wrong_arrays[a variance a little below zero-torch]",
        "eps has changed although an array was refused",
        "interop.weights",
    ),
    _n(
        "half a state stays",
        "                target.write({key: array})\n",
        "                pass\n",
        f"{KINDS}::test_what_the_framework_refuses_half_way[torch]",
        "an error is to change nothing",
        "interop.weights",
    ),
    _n(
        "a small negative variance accepted",
        'key.endswith("running_var") and (a < 0).any()',
        'key.endswith("running_var") and (a < -1e-6).any()',
        f"{INTEROP}::test_wrong_arrays[a variance a little below zero-numpy]",
        "",
        "interop.weights",
    ),
    _n(
        "any softmax left out",
        '    if last.options["dim"] not in (None, -1, 1):\n',
        "    if False:\n",
        f"{KINDS}::test_a_softmax_over_another_axis",
        "the loss has one over the classes, not over the batch",
        "interop.weights",
    ),
    _n(
        "models in the model keep their old eps",
        "            for model in self.models:\n",
        "            for model in self.models[:1]:\n",
        f"{INTEROP}::test_copied_settings_reach_models_in_the_model",
        "a constant of the function that Keras has traced of them",
        "interop.keras_models",
    ),
    # probes
    _n(
        "an output without a gradient",
        "        if self._stack is not None and gradient is not None:\n",
        "        if self._stack is not None:\n",
        f"{PROBES}::test_a_part_that_the_loss_does_not_use_has_no_gradient[chunk]",
        "the hook hears None, and the reader's own backward() raises",
        "probes.recorder",
    ),
    _n(
        "lists of several lengths",
        "                entries += [None] * (self._passes - len(entries))\n",
        "                pass\n",
        "tests/probes/test_probes.py::test_entries_line_up_with_the_passes",
        "a layer that the last pass did not reach",
        "probes.recorder",
    ),
    _n(
        "closures not looked into",
        "        return [*(value.__closure__ or ()), *(",
        "        return [*(",
        f"{PROBES}::test_a_teacher_that_is_not_registered_stays_as_it_is[a closure-]",
        "the running mean of a teacher moves while its student is looked at",
        "probes.untouched",
    ),
    _n(
        "attributes of objects stay changed",
        "    if not kind.__flags__ & HEAP_TYPE or isinstance(value, type | ModuleType):\n",
        "    if True:\n",
        f"{PROBES}::test_attributes_of_plain_objects_are_put_back",
        "a model counts its calls in an object of its own, and the check-up counts along",
        "probes.untouched",
    ),
    _n(
        "a generator of random numbers goes on",
        "    if isinstance(value, torch.Generator):\n        before = value.get_state()\n",
        "    if isinstance(value, torch.Generator):\n        return None\n        before = value.get_state()\n",
        f"{PROBES}::test_random_numbers_of_a_generator_of_its_own_go_on[torch-attribute]",
        "a run that was looked at draws other numbers than one that was not",
        "probes.untouched",
    ),
    _n(
        "values in tuples stay changed",
        "                    tensor.data.copy_(before)\n",
        "                    pass\n",
        f"{PROBES}::test_tensors_and_values_in_containers_are_put_back",
        "",
        "probes.untouched",
    ),
    # the verdict
    *(
        _n(f"the verdict: {name}", old, new, f"{VERDICT}::{test}", why, "experiments.engine.verdict")
        for name, old, new, test, why in (
            (
                "reversed below zero",
                "    if exceeds(-delta, high):",
                "    if exceeds(0, high):",
                OUTCOME,
                "a known direction is called harm",
            ),
            (
                "negligible on one side",
                "    inside = exceeds(delta, high) and exceeds(low, -delta)",
                "    inside = exceeds(delta, high)",
                OUTCOME,
                "harm that may be large is called negligible",
            ),
            ("small effects lost", "return SMALLER if inside", "return NEGLIGIBLE if inside", OUTCOME, ""),
            (
                "no correction for pairs",
                "    adjusted = holm([contrast(one, other) for one, other in pairs])",
                "    adjusted = [contrast(one, other) for one, other in pairs]",
                "test_it_depends_only_where_a_direct_contrast_survives_holm",
                "of many pairs one comes out apart by chance",
            ),
            (
                "what may be the same is called different",
                "[pair for pair in differ if not _zones(pair[0], delta) & _zones(pair[1], delta)]",
                "differ",
                "test_every_word",
                "a claim that may hold in all conditions is said to depend on them",
            ),
            (
                "less is contradicted always",
                "(needs_more and all(exceeds(delta, d.high) for d in found))",
                "(all(exceeds(delta, d.high) for d in found))",
                "test_every_word",
                "a small effect is called a contradiction of a claim that is content with one",
            ),
            (
                "what lacks something is judged",
                "    whole = [c for c in comparisons if not reasons[c.name]]",
                "    whole = [c for c in comparisons if c.difference]",
                "test_a_condition_that_lacks_something_is_open_and_so_is_the_claim",
                "",
            ),
        )
    ),
    _n(
        "Holm: smaller after larger",
        "        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))",
        "        largest = min(1.0, (len(p_values) - rank) * p_values[i])",
        "tests/experiments/engine/test_multiple.py::test_holm_by_hand",
        "an adjusted value may not be below that of a smaller p",
        "experiments.engine.multiple",
    ),
    *(
        _n(f"synchronized: {name}", old, new, f"{SYNC}::{test}", why, "kernels.sync_batch_norm")
        for name, old, new, test, why in (
            (
                "nothing between the shards",
                "    return total, start + shift, M2.sum(0) + between",
                "    return total, start + shift, M2.sum(0)",
                "test_the_one_batch",
                "what lies between the means belongs to the variance",
            ),
            (
                "shards weigh the same",
                "    share = (m.to(mean.dtype) / total).unsqueeze(1)",
                "    share = torch.ones_like(mean) / len(m)",
                "test_the_one_batch",
                "a shard counts by its values",
            ),
            (
                "far from zero",
                "    total, start = m.sum(), mean[0]",
                "    total, start = m.sum(), 0 * mean[0] - 2.0**60",
                "test_merge_far_from_zero",
                "means are subtracted from one another first",
            ),
            (
                "empty shards count",
                "    held = m > 0",
                "    held = m >= 0",
                "test_merge_takes_no_notice_of_parts_without_values",
                "what an empty shard holds has no meaning",
            ),
            (
                "sums of the shard alone",
                "            S1, S2 = sums.chunk(2)",
                "            sums.chunk(2)",
                "test_threads_are_one_large_batch[unequal]",
                "the gradient of x needs the sums over all shards",
            ),
            (
                "gamma learns K times as fast",
                "        grad_weight = S2.to(weight.dtype) if ctx.needs_input_grad[1] else None",
                "        if weight is not None and ctx.group:\n            dist.all_reduce(S2, group=ctx.group)\n"
                "        grad_weight = S2.to(weight.dtype) if ctx.needs_input_grad[1] else None",
                "test_threads_are_one_large_batch[unequal]",
                "DistributedDataParallel averages the gradients of the shards",
            ),
            (
                "Bessel of the shard",
                "        self._track(mean, var * (total / (total - 1)))",
                "        self._track(mean, var * (len(x) / (len(x) - 0.5)))",
                "test_threads_are_one_large_batch[unequal]",
                "the running variance has the global count",
            ),
            (
                "the batch is counted before all agree",
                "        total, mean, M2 = self._gather(x, error, group)",
                "        self.num_batches_tracked.add_(1)\n        total, mean, M2 = self._gather(x, error, group)",
                "test_all_threads_raise_where_one_must",
                "an error changes nothing",
            ),
            (
                "convert forgets the layer that stands twice",
                "for name, child in parent._modules.items() if child is not None)",
                "for name, child in parent.named_children())",
                "test_convert_and_revert",
                "one layer in two places is one afterwards",
            ),
        )
    ),
    *(
        _n(f"folding: {name}", old, new, f"{FOLDING}::{test}", why, f"interop.{module}")
        for module, name, old, new, test, why in (
            (
                "folding",
                "eps left out",
                '/ np.sqrt(arrays["running_var"] + eps)',
                '/ np.sqrt(arrays["running_var"])',
                "test_scale_and_shift_are_the_layer_in_evaluation",
                "hardly seen where the variances are large",
            ),
            (
                "folding",
                "the variance for its root",
                '/ np.sqrt(arrays["running_var"] + eps)',
                '/ (arrays["running_var"] + eps)',
                "test_scale_and_shift_are_the_layer_in_evaluation",
                "never seen on a network without training, whose variances are 1",
            ),
            (
                "folding",
                "the running mean forgotten",
                'shift = arrays.get("bias", 0.0) - scale * arrays["running_mean"]',
                'shift = arrays.get("bias", 0.0) + 0 * scale',
                "test_scale_and_shift_are_the_layer_in_evaluation",
                "never seen on a network without training, whose means are 0",
            ),
            (
                "folding",
                "the old bias overwritten",
                "    return folded, shift if bias is None else scale * bias + shift",
                "    return folded, shift",
                f"{SAME}[conv]",
                "convolutions before the layer most often have none",
            ),
            (
                "folding",
                "the old bias not scaled",
                "    return folded, shift if bias is None else scale * bias + shift",
                "    return folded, shift if bias is None else bias + shift",
                f"{SAME}[conv]",
                "",
            ),
            (
                "folding",
                "the axis of a transposed convolution",
                "    if transposed:\n",
                "    if transposed and weight.shape[0] != out:\n",
                f"{SAME}[transposed square]",
                "its output channels are on axis 1; with as many inputs as outputs the shapes fit all the same",
            ),
            (
                "folding",
                "the groups of a transposed convolution",
                "(by_group * scale.reshape(groups, 1, -1, ",
                "(by_group * np.resize(scale[: weight.shape[1]], len(scale)).reshape(groups, 1, -1, ",
                f"{SAME}[transposed grouped]",
                "every group has output channels of its own",
            ),
            (
                "folding",
                "the groups of the convolution behind",
                "(by_group * scale.reshape(per_input))",
                "(by_group * np.resize(scale[: weight.shape[1]], len(scale)).reshape(per_input))",
                f"{SAME}[forward grouped]",
                "every group has input channels of its own",
            ),
            (
                "folding",
                "the shift lost on the way forward",
                "added if bias is None else bias + added",
                "0 * added if bias is None else bias",
                f"{SAME}[forward]",
                "it becomes a part of the bias, summed over the weights",
            ),
            (
                "folding",
                "features on the last axis",
                '        "" if axes == 2 else "the fully',
                '        "" if axes >= 2 else "the fully',
                f"{REFUSED}[another axis]",
                "PyTorch's own fuse_linear_bn_eval does it",
            ),
            (
                "folding",
                "zero padding forgotten",
                '    return "" if backwards or not any(weights.padding) else PADDED',
                '    return ""',
                "test_what_a_numpy_network_refuses",
                "at the border the shift is missing",
            ),
            (
                "folding",
                "training mode ignored",
                'return "it is in training mode, call eval() first" if norm.training else ""',
                'return ""',
                "test_a_layer_in_training_is_refused",
                "there the statistics are those of the batch",
            ),
            (
                "torch_folding",
                "eval() called and not taken back",
                "    args, kwargs = _arguments(example)\n",
                "    args, kwargs = _arguments(example)\n    model.eval()\n",
                "test_a_layer_in_training_is_refused",
                "the training goes on in evaluation mode",
            ),
            (
                "torch_folding",
                "zero padding forgotten in torch",
                "    if not backwards and weights_pad(weights):",
                "    if False:",
                f"{REFUSED}[zero padding behind]",
                "at the border the shift is missing",
            ),
            (
                "torch_folding",
                "a convolution that something else uses",
                "    others = set(links.users[name] if backwards else links.sources[name]) - {norm}\n",
                "    others = set()\n",
                f"{REFUSED}[one convolution, two layers]",
                "torch.fx's own fuse does it",
            ),
            (
                "torch_folding",
                "weights written where others share them",
                "        setattr(weights, name, nn.Parameter(new, requires_grad=trains))",
                "        if getattr(weights, name) is None:\n"
                "            setattr(weights, name, nn.Parameter(new, requires_grad=trains))\n"
                "        getattr(weights, name).data.copy_(new)",
                f"{SAME}[tied]",
                "a second layer with the same weights changes with them",
            ),
            (
                "torch_folding",
                "the model itself",
                "        copied = copy.deepcopy(model)\n",
                "        copied = model\n",
                f"{SAME}[conv]",
                "it is needed for further training",
            ),
            (
                "torch_folding",
                "in the dtype of the weights",
                "    return tensor.detach().double().cpu().numpy()",
                "    return tensor.detach().float().cpu().numpy()",
                f"{SAME}[conv]",
                "rounded once more than necessary",
            ),
            (
                "torch_folding",
                "the copy in another mode",
                "    new.train(old.training)\n",
                "",
                f"{SAME}[conv]",
                "a part of the copy says that it is in training",
            ),
        )
    ),
    *(
        _n(f"fused kernel: {name}", old, new, f"{FUSED}::{test}", why, f"kernels.{module}", INTERPRETER)
        for module, name, old, new, test, why in (
            (
                "_triton",
                "lanes outside of the map in the variance",
                "        centered = tl.where(inside, shifted - _per_channel(tile_mean), 0.0)\n",
                "        centered = shifted - _per_channel(tile_mean)\n",
                "test_every_shape[True-(4, 3, 11)]",
                "what the mask of the load fills with 0 is not 0 once the mean is subtracted",
            ),
            (
                "_triton",
                "lanes outside of the map in the mean",
                "        k = count.to(ACC)\n",
                "        k = (0 * count + BN * BP).to(ACC)\n",
                "test_every_shape[True-(4, 3, 11)]",
                "right where the tile fits the map",
            ),
            (
                "_triton",
                "nothing between the tiles",
                "        M2 += _sum(centered * centered) + d * d * (m * share)\n",
                "        M2 += _sum(centered * centered)\n",
                "test_many_programs_share_a_channel",
                "right as long as one tile holds a channel",
            ),
            (
                "_triton",
                "nothing between the programs",
                "(tl.sum(M2, 0) + tl.sum(count * d * d, 0)) / count_all",
                "tl.sum(M2, 0) / count_all",
                "test_many_programs_share_a_channel",
                "right as long as one program holds a channel",
            ),
            (
                "_triton",
                "the pivot forgotten",
                "    mu = tl.load(x + c.to(tl.int64) * stride_c, c < C, 0.0).to(ACC) + shifted\n",
                "    mu = shifted\n",
                "test_every_shape[True-(4, 3, 11)]",
                "what was subtracted before the sums belongs to the mean",
            ),
            (
                "_triton",
                "eps outside of the root",
                "1.0 / tl.sqrt(var + (tl.full((BC,), eps, ACC) + eps_rest))",
                "1.0 / (tl.sqrt(var) + (tl.full((BC,), eps, ACC) + eps_rest))",
                "test_every_shape[True-(4, 3, 11)]",
                "",
            ),
            (
                "_triton",
                "biased running variance",
                "        unbiased = var * (count_all / (count_all - 1.0))\n",
                "        unbiased = var\n",
                "test_running_statistics_to_the_last_digits[0.1]",
                "the output is right, and evaluation is not",
            ),
            (
                "_triton",
                "momentum the wrong way round",
                "new_var = (1.0 - a) * old_var + a * unbiased",
                "new_var = a * old_var + (1.0 - a) * unbiased",
                "test_running_statistics_to_the_last_digits[0.1]",
                "",
            ),
            (
                "_triton",
                "the mask of the input",
                "        g = tl.where(value.to(grad_y.dtype.element_ty) <= 0.0, 0.0, g)\n",
                "        g = tl.where(x <= 0.0, 0.0, g)\n",
                "test_every_shape[True-(4, 3, 11)]",
                "the ReLU sees what is normalized",
            ),
            (
                "_triton",
                "the mask before rounding",
                "        g = tl.where(value.to(grad_y.dtype.element_ty) <= 0.0, 0.0, g)\n",
                "        g = tl.where(value <= 0.0, 0.0, g)\n",
                "test_the_mask_found_again_is_that_of_the_output",
                "in 16 bits a small positive output is stored as 0",
            ),
            (
                "_triton",
                "a ReLU that swallows NaN",
                "            value = tl.where(value < 0.0, 0.0, value)  # NaN stays\n",
                "            value = tl.where(value > 0.0, value, 0.0)\n",
                "test_not_a_number_goes_through_as_in_torch",
                "nobody sees that the training has broken",
            ),
            (
                "_triton",
                "the weight's gradient without the mean",
                "        sum_g_xc += _sum(g * (value - _per_channel(mu)))",
                "        sum_g_xc += _sum(g * value)",
                "test_every_shape[True-(4, 3, 11)]",
                "it is the sum of g times x̂",
            ),
            (
                "_triton",
                "the path through the variance",
                "            g -= _per_channel(mean_g) + (value - _per_channel(mu)) * _per_channel(slope)\n",
                "            g -= _per_channel(mean_g)\n",
                "test_every_shape[True-(4, 3, 11)]",
                "",
            ),
            (
                "batch_norm_triton",
                "evaluation's gradient as in training",
                "run.gradient(grad_y, y, sums if ctx.training else None, mean",
                "run.gradient(grad_y, y, sums, mean",
                "test_every_shape[False-(4, 3, 11)]",
                "running statistics are constants",
            ),
            (
                "batch_norm_triton",
                "the mask without the residual",
                '"input" if needs_x and residual is None else "output"',
                '"input" if needs_x else "output"',
                "test_every_shape[True-(4, 3, 11)]",
                "the ReLU comes after the addition",
            ),
            (
                "batch_norm_triton",
                "no gradient for the residual",
                "grad_bias, grad_residual if of_residual else None, None",
                "grad_bias, None, None",
                "test_only_what_is_asked_for[True-('residual',)]",
                "the way around the block learns nothing",
            ),
            (
                "batch_norm_triton",
                "the residual's gradient past the ReLU",
                '        if of_residual and ctx.mask != "none":\n            grad_residual = grad_y\n',
                "",
                "test_only_what_is_asked_for[True-('residual',)]",
                "the ReLU masks it, too",
            ),
            (
                "batch_norm_triton",
                "an upstream gradient of another memory order",
                "_dense(grad_y) if like is None else _as(grad_y, like)",
                "_dense(grad_y)",
                "test_channels_last_is_read_and_kept[relu]",
                "the strides of x are not those of grad_y",
            ),
            (
                "batch_norm_triton",
                "statistics in a view",
                "            if update:\n                torch.autograd.graph.increment_version(t)\n"
                "                if new is not t:\n                    t.copy_(new)\n",
                "            if update:\n                torch.autograd.graph.increment_version(t)\n",
                "test_views_that_are_not_dense",
                "the contiguous copy is updated, and dropped",
            ),
        )
    ),
)


def main() -> int:
    """Run the mutants and print the table; exit status 1 when one survives, 2 when a test could not be run."""
    parser = argparse.ArgumentParser("python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("-k", dest="part", default="", help="only the mistakes whose names contain this")
    part = parser.parse_args().part
    results = run((mutant for mutant in MUTANTS if part in mutant.name), lambda _: print(".", end="", file=sys.stderr))
    print("", table(results), sep="\n")
    counts = Counter(result.outcome for result in results)
    print(f"{len(results)} planted mistakes:", ", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    for result in results:
        if result.outcome == "could not run":
            print(f"\n{result.mutant}: {result.output}")
    return 2 if counts["could not run"] else 1 if counts["survived"] else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that have not every letter
    sys.exit(main())
