"""The checkers of chapter 11 accept the solutions and refuse wrong answers."""

from __future__ import annotations

import numpy as np
import pytest

from bnbook.checking.chapters import ch11
from bnbook.checking.chapters.ch11 import CHANCE, FAULTS, report


def simulated(k, sd):
    draws = np.random.default_rng(0).normal(size=(100_000, k))
    return sd * draws.max(axis=1).mean()


def integrated(k, sd):
    return sd * ch11.expected_maximum(k)


def updates_to(marks, curve, goal):
    for i, value in enumerate(curve):
        if value >= goal:
            if i == 0:
                return marks[0]
            share = (goal - curve[i - 1]) / (value - curve[i - 1])
            return marks[i - 1] + share * (marks[i] - marks[i - 1])
    return None


def last_crossing(marks, curve, goal):
    reached = np.flatnonzero(np.asarray(curve) >= goal)
    return None if len(reached) == 0 else updates_to(marks[reached[-1] - 1 :], curve[reached[-1] - 1 :], goal)


def no_lines(marks, curve, goal):
    reached = np.flatnonzero(np.asarray(curve) >= goal)
    return marks[reached[0]] if len(reached) else None


def sorted_interpolation(marks, curve, goal):
    """As if the curve never fell."""
    return None if max(curve) < goal else np.interp(goal, np.sort(curve), marks)


def end_if_never(marks, curve, goal):
    found = updates_to(marks, curve, goal)
    return marks[-1] if found is None else found


def audit(report, blind=()):
    faults = set()
    if len({arm["updates"] for arm in report.values()}) > 1:
        faults.add("unequal updates")
    for arm in report.values():
        val, test = (np.nan_to_num(arm[name], nan=CHANCE).mean(axis=1) for name in ("val", "test"))
        if arm["chosen"] != arm["rates"][val.argmax()]:
            faults.add("chosen on test")
        if arm["chosen"] in (arm["rates"][0], arm["rates"][-1]):
            faults.add("edge of the grid")
        if not np.isclose(arm["reported"], test[arm["rates"] == arm["chosen"]][0]):
            faults.add("diverged runs left out")
    return faults - set(blind)


def edge_of_validation(report):
    """Looks whether the validation accuracy is highest at an edge, not whether the chosen rate lies there."""
    faults = audit(report) - {"edge of the grid"}
    for arm in report.values():
        best = np.nan_to_num(arm["val"], nan=CHANCE).mean(axis=1).argmax()
        if best in (0, len(arm["rates"]) - 1):
            faults.add("edge of the grid")
    return faults


def any_diverged(report):
    faults = audit(report) - {"diverged runs left out"}
    return faults | {"diverged runs left out" for arm in report.values() if np.isnan(arm["test"]).any()}


def best_on_test(report):
    """Takes it for a choice on the test whenever the chosen rate is the best there."""
    faults = audit(report)
    for arm in report.values():
        test = np.nan_to_num(arm["test"], nan=CHANCE).mean(axis=1)
        if arm["chosen"] == arm["rates"][test.argmax()]:
            faults.add("chosen on test")
    return faults


RIGHT = {
    "ch11.optimism": [simulated, integrated],
    "ch11.updates_to": updates_to,
    "ch11.overturn": lambda: {"std": 0.25},
    "ch11.audit": [audit, lambda report: list(audit(report))],
}
WRONG = {
    "ch11.optimism": {
        "two only": lambda k, sd: sd / np.sqrt(np.pi),
        "standard error": lambda k, sd: sd / np.sqrt(k),
        "none": lambda k, sd: 0.0,
        "the usual bound": lambda k, sd: sd * np.sqrt(2 * np.log(k)),
        "no noise in it": lambda k, sd: ch11.expected_maximum(k),
        "a text": lambda k, sd: "small",
    },
    "ch11.updates_to": {
        "the last time": last_crossing,
        "no lines": no_lines,
        "as if it never fell": sorted_interpolation,
        "the end if never": end_if_never,
        "never": lambda marks, curve, goal: None,
    },
    "ch11.overturn": {
        "nothing changed": lambda: {"std": 0.01},
        "still small": lambda: {"std": 0.05},
        "a higher rate": lambda: {"lr": 3.0},
        "both fail": lambda: {"lr": 1000.0},
        "too large": lambda: {"std": 1.0},
        "two settings": lambda: {"std": 0.25, "lr": 1.0},
        "another setting": lambda: {"steps": 50},
        "negative": lambda: {"std": -0.25},
        "no dictionary": lambda: 0.25,
    },
    "ch11.audit": {
        **{f"blind to {fault}": lambda report, fault=fault: audit(report, [fault]) for fault in FAULTS},
        "finds nothing": lambda report: set(),
        "finds all": lambda report: set(FAULTS),
        "edge of validation": edge_of_validation,
        "any diverged run": any_diverged,
        "best on test": best_on_test,
        "a sentence": lambda report: "edge of the grid",
        "other words": lambda report: {"unfair"},
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_report_has_the_faults_that_were_asked_for(fault):
    for seed in range(20):
        assert audit(report(np.random.default_rng(seed), {fault})) == {fault}
        assert audit(report(np.random.default_rng(seed))) == set()


@pytest.mark.long
def test_the_overturned_setting_holds_with_a_margin():
    """The other arms of the exercise: the base setting is not overturned, the solution clearly is."""
    base, changed = (
        [ch11.accuracy(norm, **{**ch11.BASE, **change}, seed=7) for norm in ("batch", "none")]
        for change in ({}, {"std": 0.25})
    )
    assert base[0] - base[1] > 0.5
    assert changed[0] - changed[1] < 0.6 * ch11.AT_MOST and min(changed) > ch11.AT_LEAST + 0.02
