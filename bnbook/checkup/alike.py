"""Whether batches are alike, by the means of their examples at the layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .trials import Batch, Watched

APART, TOO_FAR = 0.1, 0.3  # standard deviations: batches that are less apart are alike, and what fits them is known
DEPENDENT = 10  # examples of batches whose tensors are of several lengths, as nodes of a graph, that count as one
FEWEST = 4  # batches of which one can stand apart from the others
ARRANGEMENTS, BEYOND = 100, 6  # of the same examples at random, and how many standard deviations beyond is no chance
CHANNELS = 128  # that are arranged anew, at most


class Unlike(NamedTuple):
    """Where and how batches are not alike; `too_far` for a judgement of the running statistics."""

    layer: str
    ratio: float
    message: str
    too_far: bool


def unlike(seen: dict[str, Watched], batches: Sequence[Batch]) -> Unlike | None:
    """What says most against batches that are alike: one of them that stands apart, or else all of them together."""
    together, alone = _all_together(seen, batches), _one_apart(seen, batches)
    too_far = together is not None and together.too_far
    return alone._replace(too_far=too_far) if alone else together


def _groups(layer: Watched) -> list[Tensor]:
    """Of every batch the means of its examples, (N, C), in the first call."""
    return [call.means for call in layer.seen[:: max(1, layer.calls)]]


def _rows(groups: list[Tensor], batches: Sequence[Batch]) -> float:
    """How many rows an example has, taken as alike: there is one answer for each, where there is not one for all."""

    def examples(batch: Batch, arrived: int) -> int:
        return min(batch.size or arrived, batch.answers if (batch.answers or 0) > 1 else arrived)

    rows = max(len(g) / examples(batch, len(g)) for g, batch in zip(groups, batches, strict=True))
    return rows * (1 if all(batch.agreed for batch in batches) else DEPENDENT)


def _within(groups: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of batches the examples, the means, and the variance of examples inside of them."""
    counts = torch.tensor([len(g) for g in groups], dtype=torch.float64)
    means = torch.stack([g.mean(0) for g in groups])
    squares = sum((g - mean).square().sum(0) for g, mean in zip(groups, means, strict=True))
    return counts, means, squares / (counts.sum() - len(groups))


# --- one batch against the others ------------------------------------------------------------------------------------


def _one_apart(seen: dict[str, Watched], batches: Sequence[Batch]) -> Unlike | None:
    """The batch that is farthest from all others, at the layer where that is least by chance.

    What chance does is seen by putting the same examples into batches at random, so nothing is assumed of their
    distribution. Only where every example gives one mean, for rows of one example come together.
    """
    worst, answer = float(BEYOND), None
    for name, layer in seen.items():
        groups = _groups(layer)
        if len(groups) < FEWEST or min(map(len, groups)) < 2:
            continue
        if len(groups) != len(batches) or _rows(groups, batches) > 1:
            continue
        counts, means, within = _within(groups)
        live = within > 1e-12
        if not live.any():
            continue
        of = torch.arange(len(groups)).repeat_interleave(counts.long())
        total = float(counts.sum())
        values = torch.cat(groups)[:, live]
        values = (values - values.mean(0)) / within[live].sqrt()
        ratio = _against_others(values, of, counts)
        one = int(ratio.argmax())
        if ratio[one] - 1 < (ratio - 1).sum() / 2:  # several are apart
            continue
        others = (counts @ means - counts[one] * means[one]) / (total - counts[one])
        chance = within * (1 / counts[one] + 1 / (total - counts[one]))
        square = ((means[one] - others) ** 2 - chance).clamp_min(0) / layer.moments.variance.clamp_min(1e-12)
        size = float(square[live].mean().sqrt())
        if size <= TOO_FAR:
            continue
        beyond = _beyond_chance(values[:, :: -(-values.shape[1] // CHANNELS)], of, counts)
        if beyond > worst:
            message = f"batch {one} of {len(groups)}, counted from 0, stands apart: its means are {size:.2f} standard"
            message += f" deviations of the values away from those of the others (allowed {TOO_FAR:.2f})"
            worst, answer = beyond, Unlike(name, float(ratio[one]), message, False)
    return answer


def _against_others(values: Tensor, of: Tensor, counts: Tensor) -> Tensor:
    """For every batch F of its means against those of all others, averaged over the channels: about 1 by chance."""
    sums = torch.zeros(len(counts), values.shape[1], dtype=values.dtype).index_add_(0, of, values)
    return sums.square().mean(1) / counts * counts.sum() / (counts.sum() - counts)


def _beyond_chance(values: Tensor, of: Tensor, counts: Tensor) -> float:
    """How many standard deviations the largest F lies beyond the largest ones of random batches."""
    generator = torch.Generator().manual_seed(0)
    orders = (torch.randperm(len(of), generator=generator) for _ in range(ARRANGEMENTS))
    largest = torch.stack([_against_others(values, of[order], counts).max() for order in orders])
    found = _against_others(values, of, counts).max()
    return float((found - largest.mean()) / largest.std().clamp_min(1e-12))


# --- all batches together --------------------------------------------------------------------------------------------


def _all_together(seen: dict[str, Watched], batches: Sequence[Batch]) -> Unlike | None:
    """One-way analysis of variance of the examples' means between the batches, at the layer where it says most.

    Over all channels the mean of their F, each about 1 by chance; and a single channel, which alone counts where it
    makes most of that. What is found has to be unlikely, and as large as APART.
    """
    worst, answer = 1.0, None
    for name, layer in seen.items():
        groups = _groups(layer)
        if len(groups) < 2 or min(map(len, groups)) < 2:
            continue
        rows = _rows(groups, batches) if len(groups) == len(batches) else 1.0
        for found in _variance_between(groups, rows, layer.moments.variance, len(seen)):
            if min(found.z / found.allowed, found.size / APART) > worst:
                worst, answer = min(found.z / found.allowed, found.size / APART), (name, found)
    if answer is None:
        return None
    name, found = answer
    where = "" if found.channel is None else f" of channel {found.channel}"
    message = f"the means{where} of the batches vary {found.ratio:.0f} times as much as those of batches drawn at"
    message += f" random would, by {found.size:.2f} standard deviations of the values (allowed {APART:.2f})"
    return Unlike(name, found.ratio, message, found.size > TOO_FAR)


class Between(NamedTuple):
    """How unlike batches are: the ratio of variances F, as a normal variable and beyond which that is no chance; and
    the standard deviation of the batches' means, without that of chance, in standard deviations of the values."""

    ratio: float
    z: float
    allowed: float
    size: float
    channel: int | None


def _variance_between(groups: list[Tensor], rows: float, variance: Tensor, layers: int) -> Iterator[Between]:
    counts, means, within = _within(groups)
    apart_by, examples = len(groups) - 1, float(counts.sum()) / rows - len(groups)
    rest = torch.cat([g - mean for g, mean in zip(groups, means, strict=True)])
    live = within > 1e-12
    if not live.any() or examples < 2:
        return
    center = (counts[:, None] * means).sum(0) / counts.sum()
    between = (counts[:, None] * (means - center) ** 2).sum(0) / apart_by / rows
    ratio = between[live] / within[live]
    size = ((between - within).clamp_min(0)[live] / (counts.mean() / rows) / variance[live].clamp_min(1e-12)).sqrt()
    unit = (rest[:, live] / within[live].sqrt())[:: max(1, len(rest) // 512)]
    gram = unit @ unit.T if len(unit) < unit.shape[1] else unit.T @ unit
    channels = len(ratio) ** 2 / float((gram / len(unit)).square().sum())  # as many independent ones scatter as much
    together = _normal(ratio.mean(), apart_by * max(1.0, channels), examples)
    beyond = [3 + math.sqrt(2 * math.log(tests)) for tests in (layers, layers * len(ratio))]
    one = int(ratio.argmax())
    if ratio[one] - 1 < (ratio - 1).sum() / 2:
        yield Between(float(ratio.mean()), float(together), beyond[0], float(size.square().mean().sqrt()), None)
    alone = _normal(ratio[one], apart_by, examples)
    yield Between(float(ratio[one]), float(alone), beyond[1], float(size[one]), int(live.nonzero()[one]))


def _normal(ratio: Tensor, above: float, below: float) -> Tensor:
    """A variable of the distribution F as a normal one, by Paulson's approximation."""
    a, b, root = 2 / (9 * above), 2 / (9 * below), ratio ** (1 / 3)
    return ((1 - b) * root - (1 - a)) / (a + b * root**2).sqrt()
