"""Many conditions: contrasts, p-values of outcomes, and their corrections."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bnbook.experiments import Comparison
from bnbook.experiments.engine.multiple import benjamini_hochberg, contrast, holm, p_of, survivors
from bnbook.experiments.engine.verdict import outcome


def condition(differences, first: int = 0) -> Comparison:
    seeds = range(first, first + len(differences))
    return Comparison("c", dict(zip(seeds, differences, strict=True)), dict.fromkeys(seeds, 0.0))


def test_a_contrast_is_the_paired_t_test_over_common_seeds():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 9), rng.normal(0.5, 1, 9)
    assert contrast(condition(one), condition(other)) == pytest.approx(stats.ttest_rel(one, other).pvalue)
    shifted = condition(other, first=3)  # seeds 3 to 11: six are common
    assert contrast(condition(one), shifted) == pytest.approx(stats.ttest_rel(one[3:], other[:6]).pvalue)


def test_a_contrast_without_two_common_seeds_or_without_values_says_nothing():
    one = condition([0.1, 0.2, 0.3])
    assert contrast(one, condition([0.1, 0.2], first=2)) == 1.0
    assert contrast(one, condition([0.1, None, 0.3])) == 1.0
    assert contrast(one, one) == 1.0 and contrast(one, condition([1.1, 1.2, 1.3])) == pytest.approx(0, abs=1e-12)


def test_the_p_value_of_an_outcome_is_below_five_percent_exactly_where_the_interval_says_so():
    """Every outcome that is not open is a statement about borders; p is that of the hardest."""
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(300):
        found = condition(rng.normal(rng.normal(0, 1), rng.choice([0.1, 0.5, 1]), 6)).difference
        said = outcome(found.low, found.high, 0.5)
        seen.add(said)
        assert (p_of(said, found, 0.5) < 0.05) == (said != "open")
        if said != "supported":
            continue
        assert p_of("supported", found, 0.5) == pytest.approx(
            2 * stats.t.sf((found.mean - 0.5) / (found.sd / 6**0.5), 5)
        )
    assert len(seen) == 6
    assert p_of("open", None, 0.5) == p_of("supported", None, 0.5) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
    assert survivors(holm([0.01, 0.04, 0.03, 0.005])) == 2


def test_benjamini_hochberg_by_hand():
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert benjamini_hochberg([]) == []


def test_holm_keeps_the_chance_of_one_false_rejection():
    p_values = np.random.default_rng(3).uniform(size=(2000, 10))
    false = np.mean([survivors(holm(list(row))) > 0 for row in p_values])
    assert 0.035 < false < 0.065
    assert np.mean([survivors(list(row)) > 0 for row in p_values]) > 0.3  # without a correction
