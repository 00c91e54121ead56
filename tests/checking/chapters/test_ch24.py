"""The checkers of chapter 24 accept the solutions and reject what only looks like one."""

import numpy as np
import pytest

from bnbook import functional as F
from bnbook.checking import check
from bnbook.checking.chapters.ch24 import FAULTS, layer


def merge(m, mean, M, factor=1.0, weights=None):
    held = m > 0
    m, mean, M = m[held], mean[held], M[held]
    away = mean - mean[0]
    shift = m @ away / m.sum() if weights is None else away.mean(axis=0)
    return m.sum(), mean[0] + shift, M.sum(axis=0) + factor * (m @ (away - shift) ** 2)


def merge_in_turn(m, mean, M):
    """Two at a time."""
    whole = (0, 0 * mean[m > 0][0], 0 * mean[m > 0][0])
    for n, mu, M_n in zip(m, mean, M, strict=True):
        if n:
            both, d = whole[0] + n, mu - whole[1]
            whole = (both, whole[1] + d * n / both, whole[2] + M_n + d * d * whole[0] * n / both)
    return whole


def merge_without_looking(m, mean, M):
    total = m.sum()
    mu = m @ mean / total
    return total, mu, M.sum(axis=0) + m @ (mean - mu) ** 2


def merge_by_squares(m, mean, M):
    mean, M = (np.nan_to_num(part) for part in (mean, M))
    mu = m @ mean / m.sum()
    return m.sum(), mu, (M + m[:, None] * mean**2).sum(axis=0) - m.sum() * mu**2


def gradient(x, g):
    _, cache = F.batch_norm(x, None, None, training=True)
    return F.batch_norm_backward(g, cache)[0]


def ghosts(x, g, sizes, summed=lambda off, whole: off.max() / np.abs(whole).max(), cut_both=True):
    cuts = np.cumsum(sizes)[:-1]
    parts = zip(np.split(x, cuts), np.split(g if cut_both else g[::-1], cuts), strict=True)
    whole = gradient(x, g)
    return summed(np.abs(np.concatenate([gradient(*part) for part in parts]) - whole), whole)


def plan(K, C, a, b, rounds=(1, 4), bytes_=4, share=2.0):
    n = bytes_ * (2 * C + 1)
    log = np.log2(K)
    return a * rounds[0] * log + (K - 1) * n / b, a * rounds[1] * log + share * (K - 1) / K * n / b


def diagnose(given, *, far=3.0, equal=False, forward=True):
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 24, 2))
    x[: 12 if equal else 5] += far
    cuts = [12 if equal else 5]
    shards, upstream = np.split(x, cuts), np.split(g, cuts)
    ys, grads, grads_gamma = given(shards, upstream)
    y, cache = F.batch_norm(x, None, None, training=True)
    if forward and not np.allclose(np.concatenate(ys), y, atol=1e-6):
        alone, _ = F.batch_norm(shards[0], None, None, training=True)
        return "nothing" if np.allclose(ys[0], alone) else "averages"
    if not np.allclose(np.concatenate(grads), F.batch_norm_backward(g, cache)[0], atol=1e-6):
        return "no backward"
    return "correct" if np.allclose(grads_gamma[0], (upstream[0] * ys[0]).sum(axis=0)) else "gamma twice"


RIGHT = {
    "ch24.factor": lambda sizes, rank: len(sizes) * sizes[rank] / sum(sizes),
    "ch24.merge": [merge, merge_in_turn],
    "ch24.ghosts": ghosts,
    "ch24.plan": plan,
    "ch24.diagnose": [diagnose, lambda given: diagnose(given, equal=True)],
}

WRONG = {
    "ch24.factor": {
        "of the sum": lambda sizes, rank: len(sizes) / sum(sizes),
        "without K": lambda sizes, rank: sizes[rank] / sum(sizes),
        "none": lambda sizes, rank: 1.0,
        "upside down": lambda sizes, rank: sum(sizes) / len(sizes) / max(sizes[rank], 1),
        "two processes": lambda sizes, rank: 2 * sizes[rank] / sum(sizes),
    },
    "ch24.merge": {
        "nothing between": lambda *parts: merge(*parts, factor=0),
        "means alike": lambda *parts: merge(*parts, weights="equal"),
        "empty ones count": merge_without_looking,
        "squares": merge_by_squares,
        "two things": lambda *parts: merge(*parts)[:2],
        "a variance": lambda *parts: (*merge(*parts)[:2], merge(*parts)[2] / merge(*parts)[0]),
        "half": lambda *parts: merge(*parts, factor=0.5),
    },
    "ch24.ghosts": {
        "not divided": lambda *given: ghosts(*given, lambda off, whole: off.max()),
        "the mean": lambda *given: ghosts(*given, lambda off, whole: off.mean() / np.abs(whole).max()),
        "each by its own": lambda *given: ghosts(*given, lambda off, whole: (off / np.abs(whole)).max()),
        "g uncut": lambda *given: ghosts(*given, cut_both=False),
        "nothing": lambda x, g, sizes: 0.0,
        "equal shards": lambda x, g, sizes: ghosts(x, g, [len(x) // 2, len(x) - len(x) // 2]),
    },
    "ch24.plan": {
        "one latency": lambda K, C, a, b: (a + (K - 1) * 4 * (2 * C + 1) / b, plan(K, C, a, b)[1]),
        "numbers for bytes": lambda *given: plan(*given, bytes_=1),
        "one all-reduce": lambda *given: plan(*given, rounds=(1, 2)),
        "bytes twice": lambda *given: plan(*given, share=4.0),
        "one time": lambda *given: plan(*given)[0],
        "the other way round": lambda *given: plan(*given)[::-1],
    },
    "ch24.diagnose": {
        **{f"always {fault}": lambda given, fault=fault: fault for fault in FAULTS},
        "outputs not looked at": lambda given: diagnose(given, forward=False),
        "no name": lambda given: "broken",
        "empty shards": lambda given: given([np.ones((0, 2)), np.ones((3, 2))], [np.ones((0, 2)), np.ones((3, 2))]),
    },
}


def test_the_faults_are_what_they_are_called():
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 20, 3))
    whole, cache = F.batch_norm(x, None, None, training=True)
    grad, *_ = F.batch_norm_backward(g, cache)
    parts = {fault: layer(fault, np.split(x, [6, 13]), np.split(g, [6, 13])) for fault in FAULTS}
    for fault, (ys, grads, grads_gamma) in parts.items():
        right = [
            np.allclose(np.concatenate(ys), whole),
            np.allclose(np.concatenate(grads), grad),
            np.allclose(sum(grads_gamma), (g * whole).sum(axis=0)),
        ]
        expected = {"correct": [1, 1, 1], "no backward": [1, 0, 1], "gamma twice": [1, 1, 0]}
        assert right == expected.get(fault, [0, 0, 0]), fault
    alone = gradient(x[:6], g[:6])
    np.testing.assert_allclose(parts["nothing"][1][0], alone, rtol=0, atol=1e-12)


def test_mistakes_are_named():
    assert "DDP divides by K" in str(check("ch24.factor", WRONG["ch24.factor"]["without K"]))
    assert "not even times 0" in str(check("ch24.merge", WRONG["ch24.merge"]["empty ones count"]))
    assert "between the shards is missing" in str(check("ch24.merge", WRONG["ch24.merge"]["nothing between"]))
    assert "lose the digits" in str(check("ch24.merge", WRONG["ch24.merge"]["squares"]))
    assert "Two all-reduces" in str(check("ch24.plan", WRONG["ch24.plan"]["one all-reduce"]))


@pytest.mark.parametrize("size", [1, 2])
def test_the_factor_of_equal_shards_is_one(size):
    assert RIGHT["ch24.factor"]([8] * size, 0) == 1
