"""The checkers of chapter 18 accept the solutions and refuse wrong answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from bnbook import experiments
from bnbook.checking import check
from bnbook.checking.chapters.ch18 import comparisons, report
from bnbook.experiments.engine.words import OUTCOMES
from bnbook.experiments.scoreboard import row


def interval(a, b, level=0.975, lost=1, ddof=1, root=True):
    d = a - b
    spread = np.std(d, ddof=ddof) / (np.sqrt(len(d)) if root else 1)
    half = stats.t.ppf(level, len(d) - lost) * spread
    return d.mean() - half, d.mean() + half


def normal(a, b):
    d = a - b
    half = 1.96 * np.std(d, ddof=1) / np.sqrt(len(d))
    return d.mean() - half, d.mean() + half


def unpaired(a, b):
    found = stats.ttest_ind(a, b).confidence_interval(0.95)
    return found.low, found.high


def outcome(low, high, delta, *, one_sided=False, small=True):
    if low > delta:
        return "supported"
    if high < -delta:
        return "reversed"
    inside = high < delta and (low > -delta or one_sided)
    if low > 0:
        return ("smaller than claimed" if small else "negligible") if inside else "direction known, size open"
    if inside:
        return "negligible"
    return "direction known, size open" if high < 0 else "open"


def judge(
    comparisons, delta, planned, *, whole=True, edges=True, of="interval", holm=True, paired=True, zones=True, **more
):
    outcomes, judged = {}, []
    for c in comparisons:
        outcomes[c.name] = "open"
        lacks = c.unpaired or len(c.seeds) < planned or (c.edges and edges)
        if c.difference is None or (lacks and whole):
            continue
        judged.append(c)
        low, high = (c.difference.mean,) * 2 if of == "mean" else (c.difference.low, c.difference.high)
        outcomes[c.name] = outcome(low, high, delta, **more)
    found, ends = [], (-np.inf, -delta, 0, delta, np.inf)
    for c, d in itertools.combinations(judged, 2):
        seeds = sorted(set(c.seeds) & set(d.seeds))
        of_c, of_d = (np.array([e.a[s] - e.b[s] for s in seeds]) for e in (c, d))
        p = (stats.ttest_rel if paired else stats.ttest_ind)(of_c, of_d).pvalue
        if zones:
            first, second = (
                {i for i in range(4) if e.difference.low <= ends[i + 1] and ends[i] <= e.difference.high}
                for e in (c, d)
            )
            found.append((p, not first & second))
        else:
            found.append((p, outcomes[c.name] != outcomes[d.name]))
    apart, left = False, len(found)
    for p, differ in sorted(found):
        if p * (left if holm else 1) >= 0.05:
            break
        apart, left = apart or differ, left - 1
    return outcomes, apart


def overturn():
    """A δ between the effects of `gradients`, whose rows are complete."""
    here = row("gradients")
    for factor in (2.0, 0.5, 10.0, 50.0, 100.0, 0.1):
        delta = factor * here.experiment.delta
        if (
            experiments.verdict(here.comparisons, delta, planned=here.experiment.seeds).word.split()[0]
            != here.word.split()[0]
        ):
            return {"name": "gradients", "delta": delta}
    raise AssertionError("no δ changes the word")


def audit(report, blind=()):
    plan, table, faults = report["plan"], report["table"], set()
    effects = table["effects"]
    if set(effects) != set(plan["conditions"]):
        faults.add("conditions left out")
    if table["delta"] != plan["delta"]:
        faults.add("another δ")
    for name, effect in effects.items():
        if effect["seeds"] != plan["seeds"]:
            faults.add("seeds left out")
        a, b = (np.array([report["runs"][name][arm][seed] for seed in effect["seeds"]]) for arm in "ab")
        if not np.allclose(interval(a, b), (effect["low"], effect["high"])):
            faults.add("no 95 % interval")
    supported = all(effect["low"] > table["delta"] for effect in effects.values())
    if supported != (table["word"] == "supported"):
        faults.add("word does not follow")
    return faults - set(blind)


RIGHT = {
    "ch18.interval": interval,
    "ch18.judge": judge,
    "ch18.overturn": overturn,
    "ch18.audit": audit,
}

WRONG = {
    "ch18.interval": {
        "normal": normal,
        "unpaired": unpaired,
        "biased sd": lambda a, b: interval(a, b, ddof=0),
        "one-sided": lambda a, b: interval(a, b, level=0.95),
        "no root of k": lambda a, b: interval(a, b, root=False),
        "k degrees of freedom": lambda a, b: interval(a, b, lost=0),
        "reversed": lambda a, b: interval(b, a),
        "half width": lambda a, b: interval(a, b)[1] - (a - b).mean(),
    },
    "ch18.judge": {
        **{
            f"always {word}": lambda cs, delta, planned, word=word: (dict.fromkeys([c.name for c in cs], word), False)
            for word in OUTCOMES
        },
        "numbers alone": lambda *given: judge(*given, whole=False),
        "edges do not matter": lambda *given: judge(*given, edges=False),
        "means": lambda *given: judge(*given, of="mean"),
        "negligible on one side": lambda *given: judge(*given, one_sided=True),
        "no small effects": lambda *given: judge(*given, small=False),
        "no correction": lambda *given: judge(*given, holm=False),
        "contrasts not paired": lambda *given: judge(*given, paired=False),
        "another outcome is apart": lambda *given: judge(*given, zones=False),
        "never apart": lambda *given: (judge(*given)[0], False),
        "always apart": lambda *given: (judge(*given)[0], True),
        "outcomes alone": lambda *given: judge(*given)[0],
        "the sentence": lambda cs, delta, planned: experiments.verdict(cs, delta, planned=planned).sentence,
    },
    "ch18.overturn": {
        "nothing": lambda: {},
        "no change": lambda: {"name": "gradients"},
        "two changes": lambda: {"name": "gradients", "delta": 30.0, "seeds": 3},
        "the same δ": lambda: {"name": "gradients", "delta": row("gradients").experiment.delta},
        "nearly the same δ": lambda: {"name": "gradients", "delta": 1.001 * row("gradients").experiment.delta},
        "δ out of all proportion": lambda: {"name": "gradients", "delta": 1e6},
        "no δ": lambda: {"name": "gradients", "delta": 0.0},
        "unknown": lambda: {"name": "nothing", "delta": 0.1},
        "text": lambda: {"name": "gradients", "delta": "1"},
        "one seed": lambda: {"name": "gradients", "seeds": 1},
        "all seeds": lambda: {"name": "gradients", "seeds": row("gradients").experiment.seeds},
        "a seed less": lambda: {"name": "gradients", "seeds": row("gradients").experiment.seeds - 1},
    },
    "ch18.audit": {
        "nothing wrong": lambda report: set(),
        "everything wrong": lambda report: audit(report) | {"another δ"},
        "own words": lambda report: {"bad"},
        **{
            f"blind to {fault}": lambda report, fault=fault: audit(report, blind={fault})
            for fault in (
                "conditions left out",
                "seeds left out",
                "another δ",
                "no 95 % interval",
                "word does not follow",
            )
        },
    },
}


def test_every_word_comes_up_and_every_reason_for_none():
    """Else the checker of `judge` would not ask for the rule."""
    rng = np.random.default_rng(0)
    made = [comparisons(rng, 0.01, 5) for _ in range(300)]
    judged = [judge(cs, 0.01, 5) for cs in made]
    assert {said for outcomes, _ in judged for said in outcomes.values()} == set(OUTCOMES)
    assert 0.2 < np.mean([apart for _, apart in judged]) < 0.8
    conditions = [c for cs in made for c in cs]
    for reason in ("edges", "unpaired"):
        assert any(getattr(c, reason) for c in conditions)
    assert any(c.difference is None for c in conditions) and any(len(c.seeds) < 5 for c in conditions)


def test_leaving_out_is_in_favour_of_the_claim():
    rng = np.random.default_rng(0)
    for _ in range(20):
        state = rng.bit_generator.state
        honest = report(rng)
        rng.bit_generator.state = state
        biased = report(rng, {"seeds left out"})
        name = next(n for n, e in biased["table"]["effects"].items() if len(e["seeds"]) < len(biased["plan"]["seeds"]))
        assert biased["table"]["effects"][name]["mean"] > honest["table"]["effects"][name]["mean"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"name": "nothing", "delta": 0.1}, "NAME must be one of"),
        ({"name": "gradients", "seeds": 2.5}, "whole number"),
        ({"name": "gradients", "delta": 1e6}, "at most 100 times"),
    ],
)
def test_the_checker_of_overturn_says_what_is_wrong(answer, said):
    assert said in check("ch18.overturn", lambda: answer).message
