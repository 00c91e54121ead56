"""The Triton kernels of `batch_norm_triton`; importing this file needs Triton.

Every kernel sees the input as (N, C, P) with three strides. A contiguous (N, C, H, W) is (N, C, H·W); channels-last is
(N·H·W, C, 1), in which the channels lie next to each other. A program takes a block of BC channels and a run of tiles
of BN × BP values per channel; what it sums is one row of `parts`, and `*_total` adds the rows up in a fixed order, so
that the same input always gives the same bits. Sums and statistics are float32, of float64 inputs float64.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(t, N, C, P, stride_n, stride_c, stride_p, BN: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr):
    """Of tile t: the offsets of its values, which of them exist, and how many values of a channel."""
    wide = tl.cdiv(P, BP)
    n0, p0 = (t // wide) * BN, (t % wide) * BP
    n = (n0 + tl.arange(0, BN))[:, None, None]
    c = (tl.program_id(0) * BC + tl.arange(0, BC))[None, :, None]
    p = (p0 + tl.arange(0, BP))[None, None, :]
    offsets = n.to(tl.int64) * stride_n + c.to(tl.int64) * stride_c + p * stride_p
    inside = (n < N) & (c < C) & (p < P)
    return offsets, inside, tl.minimum(N - n0, BN) * tl.minimum(P - p0, BP)


@triton.jit
def _per_channel(values):
    """(BC,) for use with a tile."""
    return values[None, :, None]


@triton.jit
def _sum(tile):
    """(BN, BC, BP) to (BC,)."""
    return tl.sum(tl.sum(tile, 2), 0)


@triton.jit
def _coefficients(
    mean, inv_std, weight, bias, c, C, ACC: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """μ, γ/√(σ² + ε) and β of the channels; without parameters γ is 1 and β 0."""
    scale = tl.load(inv_std + c, c < C, 0.0)
    beta = tl.full(c.shape, 0.0, ACC)
    if HAS_WEIGHT:
        scale *= tl.load(weight + c, c < C, 0.0).to(ACC)
    if HAS_BIAS:
        beta = tl.load(bias + c, c < C, 0.0).to(ACC)
    return tl.load(mean + c, c < C, 0.0), scale, beta


@triton.jit
def _line(x, mean, scale, beta):
    """γ x̂ + β before the activation.

    A difference and one fused multiplication and addition: forward and backward round alike, so that backward finds
    again where the output was positive.
    """
    return tl.fma(x - _per_channel(mean), _per_channel(scale) + tl.zeros_like(x), _per_channel(beta) + tl.zeros_like(x))


# --- forward ---------------------------------------------------------------------------------------------------------


@triton.jit
def statistics(
    x, parts, N, C, P, stride_n, stride_c, stride_p, tiles, each,
    ACC: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """One reading of x: (m, μ − pivot, M₂) of the program's tiles into parts (3, programs, C).

    Tiles are two-pass, in registers, and merged by Chan's formula. The pivot is the first value of the channel: it is
    subtracted before anything is summed.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    pivot = tl.load(x + c.to(tl.int64) * stride_c, c < C, 0.0).to(ACC)
    first = tl.program_id(1) * each
    m = tl.full((BC,), 0.0, ACC)
    mean = tl.full((BC,), 0.0, ACC)
    M2 = tl.full((BC,), 0.0, ACC)
    for t in range(first, tl.minimum(first + each, tiles)):
        offsets, inside, count = _tile(t, N, C, P, stride_n, stride_c, stride_p, BN, BC, BP)
        shifted = tl.load(x + offsets, inside, 0.0).to(ACC) - _per_channel(pivot)
        shifted = tl.where(inside, shifted, 0.0)
        k = count.to(ACC)
        tile_mean = _sum(shifted) / k
        centered = tl.where(inside, shifted - _per_channel(tile_mean), 0.0)
        d = tile_mean - mean
        share = k / (m + k)
        M2 += _sum(centered * centered) + d * d * (m * share)
        mean += d * share
        m += k
    row = tl.program_id(1) * C + c
    all_parts = tl.num_programs(1) * C
    tl.store(parts + row, m, c < C)
    tl.store(parts + all_parts + row, mean, c < C)
    tl.store(parts + 2 * all_parts + row, M2, c < C)


@triton.jit
def statistics_total(
    x, parts, mean, inv_std, running_mean, running_var, C, stride_c, rows, m,
    momentum, momentum_rest, eps, eps_rest,
    ACC: tl.constexpr, UPDATE: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Merge the parts: mean and 1/√(σ² + ε) of every channel, and the running statistics where there are some.

    Numbers arrive as float32; what that cuts off comes behind them, for float64.
    """
    a = tl.full((BC,), momentum, ACC) + momentum_rest
    count_all = tl.full((BC,), m, ACC)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    row = tl.arange(0, ROWS)[:, None]
    inside = (row < rows) & (c < C)[None, :]
    at = parts + row * C + c[None, :]
    count = tl.load(at, inside, 0.0)
    means = tl.load(at + rows * C, inside, 0.0)
    M2 = tl.load(at + 2 * rows * C, inside, 0.0)
    shifted = tl.sum(count * means, 0) / count_all
    d = tl.where(inside, means - shifted[None, :], 0.0)
    var = (tl.sum(M2, 0) + tl.sum(count * d * d, 0)) / count_all
    mu = tl.load(x + c.to(tl.int64) * stride_c, c < C, 0.0).to(ACC) + shifted
    tl.store(mean + c, mu, c < C)
    tl.store(inv_std + c, 1.0 / tl.sqrt(var + (tl.full((BC,), eps, ACC) + eps_rest)), c < C)
    if UPDATE:
        unbiased = var * (count_all / (count_all - 1.0))
        old_mean = tl.load(running_mean + c, c < C, 0.0).to(ACC)
        old_var = tl.load(running_var + c, c < C, 0.0).to(ACC)
        new_mean = (1.0 - a) * old_mean + a * mu
        new_var = (1.0 - a) * old_var + a * unbiased
        tl.store(running_mean + c, new_mean.to(running_mean.dtype.element_ty), c < C)
        tl.store(running_var + c, new_var.to(running_var.dtype.element_ty), c < C)


@triton.jit
def normalize(
    x, residual, y, mean, inv_std, weight, bias, N, C, P, stride_n, stride_c, stride_p, tiles, each,
    ACC: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
    RELU: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """y = relu(γ x̂ + β + residual): a reading of x, one of the residual, a writing of y."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    mu, scale, beta = _coefficients(mean, inv_std, weight, bias, c, C, ACC, HAS_WEIGHT, HAS_BIAS)
    first = tl.program_id(1) * each
    last = tl.minimum(first + each, tiles)
    for i in range(first, last):
        t = first + last - 1 - i  # what `statistics` read last is still in the cache
        offsets, inside, _ = _tile(t, N, C, P, stride_n, stride_c, stride_p, BN, BC, BP)
        value = _line(tl.load(x + offsets, inside, 0.0).to(ACC), mu, scale, beta)
        if HAS_RESIDUAL:
            value += tl.load(residual + offsets, inside, 0.0).to(ACC)
        if RELU:
            value = tl.where(value < 0.0, 0.0, value)  # NaN stays
        tl.store(y + offsets, value.to(y.dtype.element_ty), inside)


# --- backward --------------------------------------------------------------------------------------------------------


@triton.jit
def _upstream(
    grad_y, y, x, offsets, inside, mu, scale, beta,
    ACC: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """The gradient behind the ReLU. MASK: "none"; "output", where y is positive; "input", found again from x."""
    g = tl.load(grad_y + offsets, inside, 0.0).to(ACC)
    if MASK == "output":
        g = tl.where(tl.load(y + offsets, inside, 0.0) <= 0.0, 0.0, g)
    if MASK == "input":
        value = _line(x, mu, scale, beta)
        g = tl.where(value.to(grad_y.dtype.element_ty) <= 0.0, 0.0, g)
    return g


@triton.jit
def gradient_sums(
    grad_y, y, x, grad_residual, parts, mean, inv_std, weight, bias, N, C, P, stride_n, stride_c, stride_p, tiles, each,
    ACC: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, STORE: tl.constexpr, MASK: tl.constexpr,
    BN: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Σg and Σg(x − μ) of the program's tiles into parts (2, programs, C); the masked g itself where STORE."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    mu, scale, beta = _coefficients(mean, inv_std, weight, bias, c, C, ACC, HAS_WEIGHT, HAS_BIAS)
    sum_g = tl.full((BC,), 0.0, ACC)
    sum_g_xc = tl.full((BC,), 0.0, ACC)
    first = tl.program_id(1) * each
    for t in range(first, tl.minimum(first + each, tiles)):
        offsets, inside, _ = _tile(t, N, C, P, stride_n, stride_c, stride_p, BN, BC, BP)
        value = tl.load(x + offsets, inside, 0.0).to(ACC)
        g = _upstream(grad_y, y, value, offsets, inside, mu, scale, beta, ACC, MASK)
        if STORE:
            tl.store(grad_residual + offsets, g.to(grad_residual.dtype.element_ty), inside)
        sum_g += _sum(g)
        sum_g_xc += _sum(g * (value - _per_channel(mu)))  # g is 0 outside
    row = tl.program_id(1) * C + c
    tl.store(parts + row, sum_g, c < C)
    tl.store(parts + tl.num_programs(1) * C + row, sum_g_xc, c < C)


@triton.jit
def gradient_total(
    parts, inv_std, sums, grad_weight, grad_bias, C, rows, m,
    ACC: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """∂β = Σg and ∂γ = Σg x̂; and into sums (2, C) what `gradient` subtracts: ∂β/m and ∂γ/(m √(σ² + ε))."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    row = tl.arange(0, ROWS)[:, None]
    inside = (row < rows) & (c < C)[None, :]
    at = parts + row * C + c[None, :]
    s = tl.load(inv_std + c, c < C, 0.0)
    d_beta = tl.sum(tl.load(at, inside, 0.0), 0)
    d_gamma = tl.sum(tl.load(at + rows * C, inside, 0.0), 0) * s
    count = tl.full((BC,), m, ACC)
    tl.store(sums + c, d_beta / count, c < C)
    tl.store(sums + C + c, d_gamma * s / count, c < C)
    if WEIGHT:
        tl.store(grad_weight + c, d_gamma.to(grad_weight.dtype.element_ty), c < C)
    if BIAS:
        tl.store(grad_bias + c, d_beta.to(grad_bias.dtype.element_ty), c < C)


@triton.jit
def gradient(
    grad_y, y, x, grad_x, sums, mean, inv_std, weight, bias, N, C, P, stride_n, stride_c, stride_p, tiles, each,
    ACC: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, TRAINING: tl.constexpr, MASK: tl.constexpr,
    BN: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """∂x = γ/√(σ² + ε) · (g − Σg/m − x̂ Σgx̂/m), in evaluation without the two means; x is read where it is needed."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    mu, scale, beta = _coefficients(mean, inv_std, weight, bias, c, C, ACC, HAS_WEIGHT, HAS_BIAS)
    mean_g = tl.full((BC,), 0.0, ACC)
    slope = tl.full((BC,), 0.0, ACC)
    if TRAINING:
        mean_g = tl.load(sums + c, c < C, 0.0)
        slope = tl.load(sums + C + c, c < C, 0.0)
    first = tl.program_id(1) * each
    last = tl.minimum(first + each, tiles)
    for i in range(first, last):
        t = first + last - 1 - i
        offsets, inside, _ = _tile(t, N, C, P, stride_n, stride_c, stride_p, BN, BC, BP)
        value = tl.full((BN, BC, BP), 0.0, ACC)
        if TRAINING or MASK == "input":
            value = tl.load(x + offsets, inside, 0.0).to(ACC)
        g = _upstream(grad_y, y, value, offsets, inside, mu, scale, beta, ACC, MASK)
        if TRAINING:
            g -= _per_channel(mean_g) + (value - _per_channel(mu)) * _per_channel(slope)
        tl.store(grad_x + offsets, (g * _per_channel(scale)).to(grad_x.dtype.element_ty), inside)
