"""The highest rates of convolutional networks: the grid, what is compared, and what the highest rate costs."""

from __future__ import annotations

from math import log10

import matplotlib
import pytest

from bnbook import experiments
from bnbook.experiments.claims import conv_rates as R
from bnbook.experiments.claims import higher_rates

matplotlib.use("Agg")

PLANNED = 10
FRESH = range(100 * R.CONFIRMATION, 100 * R.CONFIRMATION + PLANNED)
LAST = {"batch": 3.0, "none": 0.3, "group": 1.0}  # at which the made-up networks learn


def made_up(seeds, phase: str, last=LAST) -> list[dict]:
    """Accuracies that fall by three points a decade from 0.1; above its last rate an arm has learned nothing."""
    rows = []
    for setting in R.grid():
        accuracy = 0.85 - 0.03 * abs(log10(setting["lr"] / 0.1))
        if setting["lr"] > last[setting["norm"]]:
            accuracy = 0.55
        for seed in seeds:
            rows.append(
                {
                    "experiment": "conv_rates",
                    "setting": setting,
                    "seed": seed,
                    "phase": phase,
                    "planned": PLANNED,
                    "diverged": False,
                    "val_accuracy": accuracy + 0.0001 * (seed % 5),
                    "test_accuracy": accuracy - 0.01,
                }
            )
    return rows


def confirmed(last=LAST) -> list[dict]:
    pilot = made_up(range(R.SEEDS), "choose")
    read = [setting for c in R.comparisons(pilot) for setting in c.settings]
    return pilot + [r for r in made_up(FRESH, "confirm", last) if r["setting"] in read]


def test_every_arm_has_the_same_rates():
    grid = R.grid()
    assert len(grid) == 2 * 3 * len(R.RATES) and list(R.RATES) == sorted(set(R.RATES))
    assert all(setting in grid for setting in R.grid(quick=True))


def test_batch_normalization_is_compared_with_none_and_with_group_normalization():
    rows = confirmed()
    found = {c.levels: c for c in R.comparisons(rows)}
    assert list(found) == [(name, norm) for name in R.NETWORKS for norm in ("none", "group")]
    for (name, norm), c in found.items():
        assert c.difference.mean == pytest.approx(log10(3.0 / LAST[norm])) and c.edges == ()
        assert c.seeds == tuple(FRESH) and {s["network"] for s in c.settings} == {name}
        assert max(s["lr"] for s in c.settings if s["norm"] == norm) == 10 * LAST[norm]  # dead, and one beyond
        assert R.in_scope(c) == (norm == "none")
    assert experiments.judge(rows).word == "supported"


def test_what_fresh_seeds_learn_decides():
    rows = confirmed(LAST | {"batch": 0.3})
    for c in R.comparisons(rows):
        assert c.difference.mean == pytest.approx(log10(0.3 / LAST[c.levels[1]]))
    hidden = confirmed(LAST | {"none": 30.0})
    top = R.comparisons(hidden)[0]
    assert top.b[FRESH[0]] == pytest.approx(log10(max(s["lr"] for s in R.grid())))  # what was not run counts against it
    assert experiments.judge(hidden).word != "supported"


def test_the_highest_rate_costs_what_it_is_worse_than_the_best():
    rows = confirmed()
    assert R.lost(rows, "VGG-6", "batch") == pytest.approx(dict.fromkeys(FRESH, 0.03 * log10(30)))
    assert R.lost(rows, "ResNet-8", "none") == pytest.approx(dict.fromkeys(FRESH, 0.03 * log10(3)))
    hidden = confirmed(LAST | {"none": 30.0})
    assert R.lost(hidden, "VGG-6", "none")[FRESH[0]] == pytest.approx(0.03 * log10(30))  # beyond its dead rate
    nothing = [r | {"diverged": r["seed"] == FRESH[4] or r["diverged"]} for r in rows]
    assert FRESH[4] not in R.lost(nothing, "VGG-6", "none")  # learns nowhere: there is nothing to lose


def test_the_figure_has_a_panel_for_each_network():
    picture = R.figure(confirmed())
    assert [ax.get_title() for ax in picture.axes] == list(R.NETWORKS)
    assert all(len(ax.lines) == 7 for ax in picture.axes)
    matplotlib.pyplot.close(picture)


def test_a_run_trains_the_network_of_its_setting(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        R, "train_and_score", lambda model, images, val, test, **how: seen.update(model=model, val=val, how=how)
    )
    monkeypatch.setattr(R, "split", lambda *names, half: names)
    monkeypatch.setattr(R, "subset", lambda count, seed, half: (count, seed))
    for setting in R.grid()[::4]:
        R.run(setting, 3)
        names = [type(layer).__name__ for layer in seen["model"].modules()]
        assert ("BatchNorm2d" in names) == (setting["norm"] == "batch")
        assert ("GroupNorm" in names) == (setting["norm"] == "group")
        assert seen["val"] == ("val", 10_000) and seen["how"]["steps"] == R.STEPS
        assert (seen["how"]["lr"], seen["how"]["schedule"], seen["how"]["seed"]) == (setting["lr"], "cosine", 3)


def test_it_learns_by_the_same_measure_as_the_small_network():
    assert R.METRIC == higher_rates.METRIC and R.DELTA == higher_rates.DELTA
