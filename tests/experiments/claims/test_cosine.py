"""The second versions that are under way: a falling rate, training images of a seed's own, two phases."""

from __future__ import annotations

import math

import matplotlib
import pytest

from bnbook.experiments import verdict
from bnbook.experiments.claims import dropout_before_norm_cosine as D
from bnbook.experiments.claims import init_scale
from bnbook.experiments.claims import init_scale_cosine as I
from bnbook.experiments.claims import placement_cosine as P

matplotlib.use("Agg")


def made_up(module, accuracy, seeds=range(2), **more) -> list[dict]:
    """Rows of the whole grid with these accuracies."""
    return [
        {
            "experiment": module.__name__.rpartition(".")[2],
            "setting": setting,
            "seed": seed,
            "phase": "choose",
            "diverged": False,
            "val_accuracy": accuracy(setting) + 0.001 * seed,
            "test_accuracy": accuracy(setting) + 0.001 * seed,
            **{name: value(setting) for name, value in more.items()},
        }
        for setting in module.grid()
        for seed in seeds
    ]


def confirmed(modules, rows, seeds=range(100, 110)) -> list[dict]:
    """The rows, and those of fresh seeds that a plan would ask for; each setting must be one of the grid."""
    settings = [s for module in modules for c in module.comparisons(rows) for s in c.settings]
    grid = [row["setting"] for row in rows]
    assert all(setting in grid for setting in settings) and not any(
        c.edges for m in modules for c in m.comparisons(rows)
    )
    first = {tuple(row["setting"].items()): row for row in rows if row["seed"] == 0}
    return rows + [
        first[key] | {"seed": seed, "phase": "confirm"}
        for key in dict.fromkeys(tuple(s.items()) for s in settings)
        for seed in seeds
    ]


def hill(setting):
    return 0.86 - 0.05 * abs(math.log10(setting["lr"] / 0.003)) + 0.01 * (setting["place"] == "before")


def test_dropout_is_tried_weak_and_strong_and_confirmed_at_the_chosen_rates():
    gains = {0.2: 0.0, 0.5: 0.03}
    rows = made_up(
        P, hill, accuracy_dropout_on=lambda s: 0.8, accuracy_dropout_off=lambda s: 0.8 + gains.get(s["strength"], 0)
    )
    rows = confirmed((P, D), rows)
    for c in (*P.comparisons(rows), *D.comparisons(rows), *(c for q in P.STRENGTHS for c in P.with_dropout(rows, q))):
        assert c.seeds == tuple(range(100, 110)), c.name
    found = D.comparisons(rows)
    assert [round(c.difference.mean, 9) for c in found] == [0, 0.03] * 12
    assert [D.in_scope(c) for c in found] == [False, True] * 12
    judged = verdict(found, D.DELTA, planned=10, factor=D.FACTOR)
    assert judged.word == "depends on the strength of dropout"
    gone = [row | {"diverged": row["seed"] == 103} for row in rows]
    assert D.comparisons(gone)[0].a[103] == D.comparisons(gone)[0].b[103] == 0.1
    picture = D.figure(rows)
    assert [ax.get_title() for ax in picture.axes] == ["dropout of 0.2", "dropout of 0.5"]
    assert P.comparisons([row for row in rows if row["setting"] in P.grid(quick=True)])


def test_half_of_the_values_are_dropped_where_that_is_said(monkeypatch):
    monkeypatch.setattr(P, "STEPS", 3)
    setting = {"activation": "relu", "init": "he", "place": "after", "dropout": "norm", "strength": 0.5, "lr": 0.003}
    names = [name for name, _ in P.network(setting).named_children()]
    assert names[1 : names.index("fc2")] == ["fc1", "act1", "drop1", "bn1"] and P.network(setting).drop1.p == 0.5
    row = P.run(setting, seed=0)
    assert row["accuracy_dropout_on"] != row["accuracy_dropout_off"] and not row["diverged"]
    plain = P.run({**setting, "dropout": "none", "strength": 0.0}, seed=0)
    assert plain["accuracy_dropout_on"] is None


def test_every_start_has_its_rates_and_the_range_of_scales_is_confirmed():
    def accuracy(s):
        best = {"batch": 0.1, "none": 0.1}[s["norm"]]
        if s["optimizer"] == "Adam":
            best = 0.00316 if s["norm"] == "none" else 0.01
        elif s["norm"] == "none" and s["init"] == "he":
            best = {3.16: 0.001, 10.0: 3.16e-05}.get(s["scale"], 0.1)
        return 0.85 - 0.02 * abs(math.log10((s["lr"] or 1e-12) / best)) - 0.1 * (s["norm"] == "none")

    grid = I.grid()
    assert len({tuple(s.items()) for s in grid}) == len(grid) and all(s in grid for s in I.grid(quick=True))
    rows = confirmed((I,), made_up(I, accuracy))
    for optimizer in I.OPTIMIZERS:
        for c in I.comparisons(rows, optimizer):
            assert len(c.seeds) == 10 and c.difference.mean == pytest.approx(0.1)
    for norm in I.ARMS.values():
        assert set(init_scale.usable_scales(rows, norm)) == set(range(100, 110))
    matplotlib.pyplot.close(I.figure(rows))


def test_a_rate_of_zero_leaves_the_weights_as_they_are(monkeypatch):
    monkeypatch.setattr(I, "STEPS", 2)
    setting = {"optimizer": "SGD", "init": "he", "scale": 0.01, "norm": "none", "lr": 0.0}
    before, after = I.run(setting, seed=0)["weight_norms"]
    assert before == after and before != I.run({**setting, "lr": 1.0, "scale": 1.0}, seed=0)["weight_norms"][1]
