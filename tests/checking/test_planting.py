"""The tests can fail: every mistake of `tests/mutants.py` is noticed by the test that it names."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import numpy as np
import pytest

from bnbook import functional as F
from bnbook import nn
from bnbook.checking import planting
from bnbook.checking.planting import Mutant, planted, run
from tests import mutants
from tests.mutants import MUTANTS

pytestmark = pytest.mark.long(seconds=40)


@pytest.fixture(scope="module")
def results(request):
    """What becomes of the mutants of the chosen tests, all planted in one run."""
    chosen = [item.callspec.params["mutant"] for item in request.session.items if item.name.startswith(KILLED)]
    return {result.mutant: result for result in run(chosen)}


KILLED = "test_mutant_is_killed["


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutant_is_killed(mutant, results, record_property):
    result = results[mutant]
    record_property("planted", [mutant.name, result.outcome])
    if result.outcome == "skipped":
        pytest.skip(f"{mutant.killed_by} cannot run here")
    assert result.outcome != "could not run", f"{mutant.name!r} could not be planted or asked about:\n{result.output}"
    assert result.outcome == "killed", (
        f"{mutant.killed_by} passes although bnbook.{mutant.module} has the mistake {mutant.name!r} "
        f"({mutant.why}):\n{mutant.old}\nbecame\n{mutant.new}"
    )


def test_names_are_unique():
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 30


def test_the_pages_read_the_list_of_the_tests():
    assert planting.of_the_package() == MUTANTS


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


LINEAR = "    y = x @ weight.T\n"


def harmless(**changed):
    mutant = Mutant(
        "harmless", "functional.linear", LINEAR, LINEAR.replace("x", "1 * x"), f"{mutants.LINEAR}::test_linear", ""
    )
    return replace(mutant, **changed)


def test_a_harmless_change_survives():
    (result,) = run([harmless()])
    assert result.outcome == "survived"
    assert planting.table([result]).splitlines()[1].endswith("survived")


TRIALS = """
import numpy as np
import pytest

from bnbook.functional import linear


def test_fails():
    raise AssertionError("always")


@pytest.mark.skip(reason="not here")
def test_skips():
    pass


@pytest.mark.parametrize("value", [0, 1])
def test_one_case_notices(value):
    assert linear(np.full((1, 1), float(value)), np.ones((1, 1)))[0].item() == value


@pytest.fixture
def broken():
    assert linear(np.ones((1, 1)), np.ones((1, 1)))[0].item() == 1


def test_notices_in_its_setup(broken):
    pass
"""


def test_every_outcome_is_told_apart(tmp_path, monkeypatch):
    """In one run: what one mutant does, the next does not notice."""
    monkeypatch.setattr(planting, "ROOT", tmp_path)
    (tmp_path / "test_trials.py").write_text(TRIALS, encoding="utf-8")
    (tmp_path / "test_absent.py").write_text("import pytest\n\npytest.importorskip('absent')\n", encoding="utf-8")
    (tmp_path / "test_broken.py").write_text("import no_such_module\n", encoding="utf-8")
    wrong = LINEAR.replace("weight.T", "weight.T + x")
    said = []
    cases = {
        "survived": harmless(killed_by="test_trials.py::test_one_case_notices"),
        "killed": harmless(killed_by="test_trials.py::test_one_case_notices", new=wrong),
        "killed in the setup": harmless(killed_by="test_trials.py::test_notices_in_its_setup", new=wrong),
        "survived the others": harmless(killed_by="test_trials.py::test_notices_in_its_setup"),
        "skipped": harmless(killed_by="test_trials.py::test_skips"),
        "skipped, the whole file": harmless(killed_by="test_absent.py::test"),
        "could not run: .*test_fails fails without a mistake": harmless(killed_by="test_trials.py::test_fails"),
        "could not run: no test is named": harmless(killed_by="test_trials.py::test_one"),
        "could not run: no test is named .*no_such_module": harmless(killed_by="test_broken.py::test"),
        "could not run: no test is named test_gone": harmless(killed_by="test_gone.py::test"),
        "could not run: .*must occur once": harmless(killed_by="test_trials.py::test_one_case_notices", old="no text"),
        "could not run: SyntaxError": harmless(killed_by="test_trials.py::test_one_case_notices", new="    y = = 1\n"),
    }
    results = run(cases.values(), said.append)
    assert said == results and len(results) == len(cases)
    for expected, result in zip(cases, results, strict=True):
        outcome, _, words = expected.partition(": ")
        assert outcome.startswith(result.outcome), (expected, result)
        assert re.search(words, result.output, re.DOTALL), (expected, result)


def test_what_needs_another_environment_is_asked_in_a_process_of_its_own(monkeypatch):
    """Between others, and in their order; where the variable is set already, here."""
    wrong = LINEAR.replace("weight.T", "weight.T + x")
    needs = (("BNBOOK_TRIAL", "1"),)
    said = []
    mutants = [harmless(environment=needs), harmless(), harmless(new=wrong, environment=needs), harmless(new=wrong)]
    results = run(mutants, said.append)
    assert [result.mutant for result in results] == mutants and len(said) == 4
    assert [result.outcome for result in results] == ["survived", "survived", "killed", "killed"]
    assert "Error" in results[2].output
    monkeypatch.setattr(planting, "_elsewhere", None)
    monkeypatch.setenv("BNBOOK_TRIAL", "1")
    assert [result.outcome for result in run(mutants[:1])] == ["survived"]


def test_a_process_that_ends_too_early_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(planting, "ROOT", tmp_path)
    package = tmp_path / "bnbook" / "checking"
    package.mkdir(parents=True)
    (package / "planting.py").write_text("raise SystemExit('out of memory')\n", encoding="utf-8")
    (package / "__init__.py").touch()
    (tmp_path / "bnbook" / "__init__.py").touch()
    with pytest.raises(RuntimeError, match=r"BNBOOK_TRIAL.* ended with 1:\nout of memory"):
        run([harmless(environment=(("BNBOOK_TRIAL", "1"),))])
