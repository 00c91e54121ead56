"""The second versions that are under way: a falling rate, training images of a seed's own, two phases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnbook.experiments import find
from bnbook.experiments.claims import noise as N
from bnbook.experiments.claims import noise_cosine


def test_noise_has_every_arm_at_every_rate_but_the_highest():
    grid = noise_cosine.grid()
    assert len({tuple(s.items()) for s in grid}) == len(grid) == 10 * 6 + 4
    assert {s["arm"] for s in grid if s["lr"] == max(N.RATES)} == {N.BN, N.HELD}
    assert all(s in grid for s in noise_cosine.grid(quick=True))
    assert find("rate_tuning_cosine").rows_of == "noise_cosine" and find("noise_cosine").confirm


def test_the_turn_is_that_of_every_update_at_the_rate_that_it_had(monkeypatch):
    monkeypatch.setattr(noise_cosine, "STEPS", 4)
    seen = []
    monkeypatch.setattr(noise_cosine, "log10_turn", lambda model, lr: seen.append(lr) or lr)
    result = noise_cosine.run({"arm": N.BN, "init": "he", "lr": 0.2}, seed=0)
    assert seen == pytest.approx([0.1 * (1 + math.cos(math.pi * k / 4)) for k in range(4)])
    assert result["log10_turn"] == pytest.approx(np.mean(seen)) and not result["diverged"]


def test_held_lengths_are_held(monkeypatch):
    monkeypatch.setattr(noise_cosine, "STEPS", 3)
    kept = []
    monkeypatch.setattr(noise_cosine, "network", lambda *a: kept.append(N.network(*a)) or kept[-1])
    noise_cosine.run({"arm": N.HELD, "init": "he", "lr": 1.0}, seed=1)
    for old, new in zip(N.hidden_weights(N.network(N.HELD, "he", 1)), N.hidden_weights(kept[0]), strict=True):
        assert np.allclose(old.norm(dim=1).detach(), new.norm(dim=1).detach()) and not np.allclose(
            old.detach(), new.detach()
        )
