"""`python -m bnbook.checking mutate`: which of a reader's tests see which mistake, and what cannot be judged."""

from __future__ import annotations

import ast
import json
import textwrap
from pathlib import Path

import pytest

from bnbook.checking import mutate as mutate_module
from bnbook.checking.__main__ import main
from bnbook.checking.answers import BadFile
from bnbook.checking.mutate import mutate, summary, text
from bnbook.checking.mutations import mistakes

CENTRE = """\
import numpy as np


def centre(x):
    return x - x.mean(axis=0)
"""
LOOSE = """

def test_mean():
    assert abs(centre(np.array([[1.0, 2.0], [3.0, 4.0]])).mean()) < 1e-9
"""
STRICT = """

def test_values():
    x = np.array([[1.0, 2.0], [3.0, 5.0], [8.0, 8.0]])
    return np.allclose(centre(x), [[-3, -3], [-1, 0], [4, 3]])
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def made(*lines: str, parameters: str = "x, m, gamma, beta, eps, momentum, running_mean, training") -> dict[str, str]:
    """What becomes of the lines of a function: the changed statement, and what is said of it."""
    body = textwrap.indent("\n".join(lines), "    ")
    return {found.became: found.words for found in mistakes(f"def f({parameters}):\n{body}\n")}


# --- the mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("v = x.var(axis=0)", ["v = x.var(axis=1)", "v = x.var(axis=None)", "v = x.var(axis=0, ddof=1)"]),
        ("v = x.var((0, 2, 3))", ["v = x.var(0)", "v = x.var(None)", "v = x.var((0, 2, 3), ddof=1)"]),
        ("v = np.var(x, 0, ddof=1)", ["v = np.var(x, 1, ddof=1)", "v = np.var(x, 0, ddof=0)"]),
        ("v = x.var(dim=0)", ["v = x.var(dim=1)", "v = x.var(dim=0, correction=0)"]),
        ("v = x.var(dim=0, unbiased=False)", ["v = x.var(dim=0, unbiased=True)"]),
        ("b = g.sum(axis=0)", ["b = g.mean(axis=0)", "b = g.sum(axis=1)", "b = g.sum(axis=None)"]),
        ("s = 1 / np.sqrt(v + eps)", ["s = 1 / np.sqrt(v)", "s = 1 / (np.sqrt(v) + eps)", "s = 1 / (v + eps)"]),
        ("s = (v + self.eps) ** -0.5", ["s = v ** (-0.5)", "s = (v ** 0.5 + self.eps) ** (-1)"]),
        ("y = gamma * h + beta", ["y = h + beta", "y = gamma * h", "y = gamma * h - beta", "y = beta"]),
        ("d = s * (g - g_mean)", ["d = s * g", "d = s * (g + g_mean)", "d = g - g_mean"]),
        ("u = v * m / (m - 1)", ["u = v * m", "u = v * m / m", "u = v / (m - 1)"]),
        ("d = g_sum / m", ["d = g_sum", "d = g_sum / (m - 1)"]),
        ("d = g_sum / len(g)", ["d = g_sum / (len(g) - 1)"]),
        ("d = g_sum / x.shape[0]", ["d = g_sum / (x.shape[0] - 1)"]),
        ("v = (c ** 2).mean(axis=0)", ["v = c.mean(axis=0)", "v = c.var(axis=0, ddof=1)"]),
        ("v = np.mean(c * c, 0)", ["v = c.var(0, ddof=1)"]),
        (
            "r = (1 - momentum) * r + momentum * b",
            ["r = (1 - (1 - momentum)) * r + (1 - momentum) * b", "r = (1 - momentum) * r"],
        ),
        ("c = x - mean", ["x -= mean; c = x", "c = x", "c = x + mean"]),
        ("s = running_mean.copy()", ["s = running_mean"]),
        ("s = np.copy(running_mean)", ["s = running_mean"]),
        ("running_mean[...] = v", ["running_mean = v", "pass"]),
        ("self.running_mean[:] = v", ["self.running_mean = v", "pass"]),
        ("count += 1", ["count -= 1", "pass"]),
        ("self.update(v)", ["pass"]),
        ("if training: pass", ["if True:", "if False:"]),
        ("v = a if training else b", ["v = a if True else b", "v = a if False else b"]),
        ("if m < 2: raise ValueError(m - 1)", ["if False:", "if m <= 2:"]),
        ("d = (g * x_hat).mean()", ["d = (g * x).mean()"]),
        ("return dx, dgamma, dbeta", ["return (dx, dbeta, dgamma)"]),
        ("return -d", ["return d"]),
    ],
)
def test_a_line_gets_the_mistakes_that_people_make_in_it(line, expected):
    found = made(line)
    assert [part for part in expected if part not in found] == [], found
    for became in found:  # each is a program
        ast.parse(f"{became}\n    pass" if became.endswith(":") else became.removeprefix("return "))


@pytest.mark.parametrize(
    "line",
    [
        "shape = (1, -1) + (1,) * (x.ndim - 2)",
        "axes = (0, *range(2, x.ndim - 1 + 1))",
        "y = x[:, 1 + 1]",
        "y = x.reshape(m * 2, -1)",
        "assert m - 1 > 0, x - m",
        'raise ValueError(f"got {m - 1}", m - 1)',
        "y = 'a' + 'b'",
        "c = x - mean  # pragma: no mutate",
    ],
)
def test_shapes_messages_and_marked_lines_have_none(line):
    assert made(line) == {}


def test_tests_are_left_alone_and_the_constructor_keeps_its_fields():
    assert mistakes("def test_it(x):\n    assert f(x - 1)\n    y = x - 1\n") == []
    assert mistakes("class Layer:\n    def __init__(self):\n        self.count = 0\n") == []
    assert mistakes("y = 3 - 1\n") == []  # outside of functions


def test_a_mistake_is_one_change_with_its_line_and_a_hint():
    found = mistakes(CENTRE)
    assert [mistake.line for mistake in found] == [5] * len(found)
    assert len({mistake.became for mistake in found}) == len(found) >= 5
    for mistake in found:
        assert ast.unparse(mistake.tree).replace(mistake.became, mistake.was) == ast.unparse(ast.parse(CENTRE))
        assert mistake.hint and mistake.words
    said = {m.words: m.hint for m in mistakes("def f(h, gamma, beta):\n    return gamma * h + beta\n")}
    assert said["the factor gamma is missing"] == "use a γ that is not 1"
    assert said["beta is not added"] == "use a β that is not 0"


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_what_each_test_sees(tmp_path, capfd):
    path = written(tmp_path / "centre.py", CENTRE + LOOSE + STRICT)
    before = path.read_bytes()
    assert main(["mutate", str(path), "--json"]) == 0
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert err == "" and found["tests"] == ["test_mean", "test_values"]
    assert (found["seen"], found["unseen"]) == (len(found["mistakes"]), 0)
    by = {row["became"]: row["seen_by"] for row in found["mistakes"]}
    assert by["return x - x.mean(axis=None)"] == ["test_values"]  # its mean is zero as well
    assert by["return x + x.mean(axis=0)"] == ["test_mean", "test_values"]
    said = text(found, 80)
    assert "test_values  " in said and f"of {found['seen']}, " in said and "no test" not in said
    assert said.endswith(summary(found)) and summary(found) == f"All {found['seen']} mistakes are seen."


@pytest.mark.long
def test_a_survivor_is_named_with_what_would_see_it(tmp_path, capfd):
    path = written(tmp_path / "centre.py", CENTRE + LOOSE + "\n\ndef test_nothing():\n    centre(np.eye(2))\n")
    assert main(["mutate", str(path)]) == 1
    out, err = capfd.readouterr()
    assert err == "" and "\nWhat no test sees, and what would:\n" in out
    assert "  Use axes of different lengths, and images as well as tables.\n    line 5    return x - x.mean(" in out
    assert "test_nothing  0 of " in out and "it cannot fail" in out


@pytest.mark.long
def test_tests_in_a_file_of_their_own_import_the_layer(tmp_path, monkeypatch):
    written(tmp_path / "centre.py", CENTRE)
    (tmp_path / "elsewhere").mkdir()
    words = "import numpy as np\nfrom centre import centre\n" + STRICT
    tests = written(tmp_path / "elsewhere" / "my_tests.py", words)
    monkeypatch.chdir(tmp_path)
    found = mutate(Path("centre.py"), Path("elsewhere/my_tests.py"))
    assert found["tests"] == ["test_values"] and found["unseen"] == 0
    assert tests.read_text(encoding="utf-8") == words


@pytest.mark.long
def test_a_mistake_that_never_ends_or_cannot_be_loaded_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(mutate_module, "ALLOWANCE", 0.5)
    monkeypatch.setattr(mutate_module, "FACTOR", 0)
    endless = """\
def count(n):
    while n > 0:
        n = n - 2
    return n


FIRST = 1 / count(1)


def test_count():
    assert count(4) == 0
"""
    found = mutate(written(tmp_path / "count.py", endless))
    by = {row["became"]: row["seen_by"] for row in found["mistakes"]}
    assert by == {
        "n = n + 2": ["test_count"],
        "n = n": ["test_count"],
        "while n >= 0:": ["test_count"],
    }


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (None, "layer.py: there is no such file"),
        ("def f(:\n", "layer.py, line 1: invalid syntax"),
        ("x = 1\0", "source code string cannot contain null bytes"),
        ("y = '\xe4'\n", "'utf-8' codec can't decode"),
        (CENTRE, "layer.py: there is no test in it: a test is a function whose name begins with test_"),
        ("def test_it():\n    assert True\n", "layer.py: there is no arithmetic in its functions"),
        (f"{CENTRE}\n\ndef test_it(x):\n    pass\n", "layer.py: test_it wants x: a test is called without arguments"),
        (f"{CENTRE}\n\ny = z\n", "layer.py: line 8: NameError: name 'z' is not defined"),
        (
            f"{CENTRE}\n\ndef test_it():\n    assert centre(np.ones(2)).all(), 'two\\nlines'\n",
            "layer.py: test_it fails before any mistake is planted (line 9): AssertionError: two",
        ),
        (
            f"{CENTRE}\n\ndef test_it():\n    return False\n",
            "layer.py: test_it fails before any mistake is planted",
        ),
        (
            f"{CENTRE}\n\ndef test_it():\n    return centre(None)\n",
            "layer.py: test_it raises before any mistake is planted (line 5): AttributeError: 'NoneType'",
        ),
        (
            f"{CENTRE}\n\ndef test_it():\n    while True:\n        pass\n",
            "layer.py: test_it does not end within 2 s, before any mistake is planted",
        ),
        (f"{CENTRE}\n\nwhile True:\n    pass\n", "layer.py: it does not end within 2 s"),
        (
            f"{CENTRE}\n\ndef test_it():\n    import os\n    os._exit(3)\n",
            "layer.py: test_it cannot be run: the process was ended (exit status 3)",
        ),
    ],
)
def test_what_cannot_be_judged_gets_one_line(layer, said, tmp_path, capfd):
    path = tmp_path / "layer.py"
    if layer is not None:
        path.write_bytes(layer.encode("latin-1"))
    assert main(["mutate", str(path), "--timeout", "2"]) == 2
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert out == "" and line.startswith("layer.py") and said in line


def test_bad_files_of_tests_and_folders(tmp_path):
    path = written(tmp_path / "layer.py", CENTRE)
    cases = {
        "none.py": "none.py: there is no such file",
        "notes.txt": "notes.txt: not a file of Python",
        "folder": "folder: this is no file",
        "broken.py": "broken.py: line 1: ModuleNotFoundError: No module named 'no_such_layer'",
    }
    written(tmp_path / "notes.txt", "")
    written(tmp_path / "broken.py", "import no_such_layer\n")
    (tmp_path / "folder").mkdir()
    for name, said in cases.items():
        with pytest.raises(BadFile) as error:
            mutate(path, tmp_path / name)
        assert str(error.value).startswith(said)
    with pytest.raises(BadFile, match=r"^\.: this is no file"):
        mutate(Path("."))


@pytest.mark.long
def test_a_test_that_passes_now_and_then_is_refused(tmp_path):
    flag = tmp_path / "flag"
    words = f"""{CENTRE}

def test_once():
    import pathlib
    flag = pathlib.Path({str(flag)!r})
    assert not flag.exists(), "the second time"
    flag.touch()
"""
    with pytest.raises(BadFile, match=r"test_once fails before any mistake is planted .*the second time"):
        mutate(written(tmp_path / "layer.py", words))


def test_the_help_says_whose_code_runs_and_what_the_status_means(capsys):
    with pytest.raises(SystemExit):
        main(["mutate", "--help"])
    said = capsys.readouterr().out
    assert "run on this computer as you" in said and "Exit status: 0" in said and "pragma: no mutate" in said
