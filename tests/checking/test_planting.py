"""The tests can fail: every mistake of `tests.mutants` is noticed by the test that it names."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from bnbook import functional as F
from bnbook import nn
from bnbook.checking import planting
from bnbook.checking.planting import Mutant, planted, pytest_quietly, run
from tests import mutants
from tests.mutants import MUTANTS


@pytest.fixture(scope="module")
def without():
    """The exit code of the named tests while nothing is planted."""
    return pytest_quietly(dict.fromkeys(mutant.killed_by for mutant in MUTANTS))


def test_the_named_tests_pass_without_a_mistake(without):
    code, output = without
    assert code == 0, f"the tests that should notice mistakes fail without one:\n{output}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutant_is_killed(mutant, without, mutant_results):
    result = run(mutant)
    mutant_results.append(result)
    if result.outcome == "skipped":
        pytest.skip(f"{mutant.killed_by} cannot run here")
    assert result.outcome == "killed", (
        f"{mutant.killed_by} passes although bnbook.{mutant.module} has the mistake {mutant.name!r} "
        f"({mutant.why}):\n{mutant.old}\nbecame\n{mutant.new}"
    )


def test_names_are_unique():
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 30


def probe():
    """Results through every way in which a function is reached."""
    x = np.random.default_rng(0).normal(size=(4, 3))
    layer = nn.BatchNorm1d(3, dtype=np.float64)
    return F.batch_norm(x, None, None, training=True)[0], layer(x), layer.running_var.copy(), F.layer_norm(x, 3)[0]


def test_a_planted_mistake_is_seen_everywhere_and_leaves():
    before = probe()
    function, code = F.batch_norm, F.batch_norm.__wrapped__.__code__
    mutant = next(m for m in MUTANTS if m.name == "variance over m - 1")
    with planted(mutant):
        during = probe()
    for a, b, c in zip(before, during, probe(), strict=True):
        assert not np.allclose(a, b)
        np.testing.assert_array_equal(a, c)
    assert F.batch_norm is function and function.__wrapped__.__code__ is code


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mistake_leaves(mutant):
    state = copy.deepcopy(probe())
    with pytest.raises(ZeroDivisionError), planted(mutant):
        raise ZeroDivisionError
    for a, b in zip(state, probe(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_mutant_that_no_longer_fits_is_an_error():
    for old in ("no such text", "return"):
        mutant = Mutant("rotten", "functional.linear", old, "", "tests/test_optim.py", "")
        with pytest.raises(
            ValueError, match=f"mutant 'rotten': '{old}' must occur once in bnbook.functional.linear, got"
        ):
            mutant.source()


def test_a_harmless_change_survives():
    mutant = Mutant(
        "harmless",
        "functional.linear",
        "    y = x @ weight.T\n",
        "    y = 1 * x @ weight.T\n",
        f"{mutants.LINEAR}::test_linear",
        "",
    )
    result = run(mutant)
    assert result.outcome == "survived"
    assert planting.table([result]).splitlines()[1].endswith("survived")
