"""The scoreboard: every experiment has its row, the rows say what the results say, and the page shows both.

A row on the page is a label, a heading, a cell that prints `scoreboard.details`, and four points about what it means.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil
from pathlib import Path
from statistics import median

import nb as tool
import nb_guards as guards
import pytest
from nbformat import NotebookNode

from bnbook import experiments
from bnbook.experiments import Comparison, scoreboard
from bnbook.experiments.engine.rows import ResultsError
from bnbook.experiments.engine.words import OPEN, OUTCOMES, is_factor

PAGE = tool.BOOK / "18_scoreboard.ipynb"
OWN = sorted(path.stem for path in Path(experiments.__file__).parent.glob("claims/[a-z]*.py"))
ON_THE_BOARD = [name for titles in scoreboard.CLAIMS.values() for name in titles]
POINTS = ("Strongest fair version", "Larger studies", "Does not reach", "Would change it")


def list_of_chapter_1() -> dict[str, str]:
    """The claims of chapter 1, with what stands in the column of verdicts."""
    (text,) = (cell.source for cell in tool.read(tool.BOOK / "01_why.ipynb").cells if "| verdict |" in cell.source)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {line[0]: line[-1] for line in cells}


def test_the_board_answers_the_list_of_chapter_1():
    assert list(scoreboard.CLAIMS) == list(list_of_chapter_1())


def test_every_line_of_chapter_1_links_to_its_rows():
    for line, verdict in list_of_chapter_1().items():
        anchors = [f"scoreboard-{name.replace('_', '-')}" for name in scoreboard.CLAIMS[line]]
        assert re.findall(r"\]\(#([\w-]+)\)", verdict) == anchors, line


def test_every_experiment_is_on_the_board_once():
    assert sorted(ON_THE_BOARD) == OWN


# The page


@pytest.fixture(scope="module")
def page() -> NotebookNode:
    return tool.read(PAGE)


@pytest.fixture(scope="module")
def board() -> list[scoreboard.Row]:
    return scoreboard.board()


def problems(page: NotebookNode, board: list[scoreboard.Row]) -> list[str]:
    """What is wrong with the rows on a page."""
    found = []
    made = {
        "table": scoreboard.table(board),
        "answers": scoreboard.answers({row.name: row for row in board}),
        "many": scoreboard.many(board),
        "policy_table": scoreboard.policy_table(),
        "chosen_again": scoreboard.chosen_again(board),
        "confirmed_again": scoreboard.confirmed_again(board),
    }
    for name, text in made.items():
        if text not in shown(page, f"Markdown(scoreboard.{name}("):
            found.append(f"the stored {name} is not that of the results: run tools/nb.py run {PAGE.name}")
    for row in board:
        label = f"({row.anchor})=\n"
        places = [i for i, cell in enumerate(page.cells) if cell.cell_type == "markdown" and label in cell.source]
        if len(places) != 1:
            found.append(f"{row.name}: the label {row.anchor} stands in {len(places)} cells")
            continue
        before = page.cells[places[0]].source.split(label)[1]
        after = re.split(r"^(?:\(.*\)=|## .*)$", page.cells[places[0] + 2].source, flags=re.M)[0]
        if before.partition("\n")[0] != f"### {row.title}":
            found.append(f"{row.name}: the heading is not {row.title!r}")
        if row.experiment.source not in after.partition("- **")[0]:
            found.append(f"{row.name}: {row.experiment.source} is not cited as the source")
        points = re.findall(r"^- \*\*(.*?)\.?\*\*.*$", after, flags=re.M)
        if tuple(points) != POINTS:
            found.append(f"{row.name}: the points are {points}")
        if not re.search(r"^- \*\*Larger studies\.\*\*.*\{cite", after, flags=re.M):
            found.append(f"{row.name}: nothing is cited among the larger studies")
        text = shown(page, f'Markdown(scoreboard.details(rows["{row.name}"]))', places[0] + 1)
        if f"> “{row.experiment.claim}”" not in text:
            found.append(f"{row.name}: the claim is not quoted in the source's own sentence")
        if f"): {row.quoted}.\n" not in text or f"”: {row.repeated}.\n" not in text:
            found.append(f"{row.name}: the stored verdict is not that of the results: run tools/nb.py run {PAGE.name}")
        elif scoreboard.details(row) not in text:
            found.append(f"{row.name}: the stored row is not that of the results: run tools/nb.py run {PAGE.name}")
    return found


def shown(page: NotebookNode, code: str, number: int | None = None) -> str:
    """The stored output of the cell with this code (of this number), empty where there is none."""
    cells = page.cells if number is None else page.cells[number : number + 1]
    return "\n".join(
        text for c in cells if c.cell_type == "code" and code in c.source for text in guards.output_texts(c)
    )


def test_the_page_shows_every_row_as_the_results_have_it(page, board):
    assert problems(page, board) == []


def tampered(page: NotebookNode, old: str, new: str) -> NotebookNode:
    text = json.dumps(page, ensure_ascii=False)
    assert old in text
    return NotebookNode(json.loads(text.replace(old, new), object_hook=NotebookNode))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("(scoreboard-higher-rates)=", "(scoreboard-rates)=", "higher_rates: the label scoreboard-higher-rates"),
        ("### The rate is the", "### The rate was the", "rate_is_the_reason: the heading"),
        ("`bjorck2018understanding`.", "`santurkar2018how`.", "rate_is_the_reason: bjorck2018understanding is not"),
        ("much higher learning rates", "higher learning rates", "higher_rates: the claim is not quoted"),
        ('rows[\\"faster\\"]', 'rows[\\"depth\\"]', "faster: the claim is not quoted"),
        ("**Larger studies.**", "**Larger studies**", "faster: nothing is cited"),
        ("- **Would change it**", "- **Would be nice**", "depth: the points are"),
        ("| as it is repeated |", "| as it is |", "the stored table"),
        ("| you have |", "| I have |", "the stored answers"),
        ("Of all conditions: ", "Of some conditions: ", "the stored many"),
        ("half a point, 50 of", "half a point, 51 of", "the stored policy_table"),
        ("**Our setting.** Fashion-MNIST", "**Our setting.** MNIST", "gradients: the stored row is not"),
    ],
)
def test_a_page_that_was_tampered_with_is_found_out(page, board, old, new, said):
    assert any(problem.startswith(said) for problem in problems(tampered(page, old, new), board))


def test_a_stored_verdict_that_the_results_do_not_give_is_found_out(page, board):
    """As when rows were added and the page was not run again."""
    made_up = experiments.Verdict("supported", "Supported: made up.", dict.fromkeys(map(str, range(7)), "supported"))
    changed = [dataclasses.replace(row, judged=made_up, comparisons=()) for row in board]
    found = problems(page, changed)
    assert all(any(problem.startswith(f"{row.name}: the stored verdict") for problem in found) for row in board)


def test_an_experiment_that_the_page_does_not_show_is_found_out(page, board):
    new = dataclasses.replace(board[0], name="newest")
    assert problems(page, [*board, new])[-1] == "newest: the label scoreboard-newest stands in 0 cells"


# The rows


@pytest.fixture
def results(tmp_path) -> Path:
    """A folder with the committed rows of `gradients`, which are complete."""
    for file in experiments.RESULTS.glob("gradients.*"):
        shutil.copy(file, tmp_path)
    return tmp_path


def test_a_complete_row_has_the_verdict_of_judge(results):
    row = scoreboard.row("gradients", results)
    expected = experiments.judge(experiments.load("gradients"))
    assert (row.judged, row.word) == (expected, expected.word)
    assert row.repeated == f"**{expected.word}**: supported in 6 of 9 conditions, reversed in 3"
    assert row.quoted == row.quoted_word == "not measured"  # the sentence speaks of training, the rows of the start
    assert row.done == row.planned == 560
    text = scoreboard.details(row)
    assert row.repeated in text and row.experiment.claim in text and row.experiment.folklore in text
    for comparison in row.experiment.comparisons(experiments.load("gradients")):
        outcome, mean = expected.outcomes[comparison.name], comparison.difference.mean
        side = "above" if mean > 0 else "below"
        line = rf"^\| {re.escape(comparison.name)} \| (\S+) \| \[.*\] \| {outcome} \| {side} \|$"
        found = re.search(line, text, flags=re.M)
        digits, _, power = found[1].partition("·10")
        power = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
        assert float(digits) * 10**power == pytest.approx(10**mean, rel=0.05)  # a factor, in two digits


def test_one_missing_run_leaves_no_verdict_whatever_the_others_say(results):
    file = results / "gradients.jsonl"
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    row = scoreboard.row("gradients", results)
    assert (row.judged, row.word, row.comparisons) == (None, "no verdict yet", ())
    assert row.repeated == row.quoted == "no verdict yet, 559 of 560 planned runs" and row.quoted_word == row.word
    assert row.repeated in scoreboard.details(row) and "| condition |" not in scoreboard.details(row)
    assert "**no verdict yet** (559 of 560 runs)" in scoreboard.table([row])


def test_stale_rows_and_more_seeds_than_planned_do_not_count(results):
    file = results / "gradients.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    more = [line | {"seed": line["seed"] + 100} for line in lines if line["seed"] < 2]
    stale = [line | {"version": 0} for line in lines if line["seed"] == 9]
    kept = [line for line in lines if line["seed"] < 9 and line["setting"]["depth"] != 80]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*kept, *more, *stale]), encoding="utf-8")
    settings = {json.dumps(line["setting"]) for line in lines}
    deep = {setting for setting in settings if json.loads(setting)["depth"] == 80}
    row = scoreboard.row("gradients", results)
    assert row.done == (len(settings) - len(deep)) * 9 and row.judged is None


def test_a_complete_row_does_not_read_some_runs_of_a_seed_that_was_not_planned(results):
    """As those that another plan has left."""
    expected = scoreboard.row("gradients", results)
    file = results / "gradients.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    with file.open("a", encoding="utf-8") as rows:
        rows.writelines(json.dumps(line | {"seed": 1000}) + "\n" for line in lines if line["seed"] == 0)
    found = scoreboard.row("gradients", results)
    assert found.judged == expected.judged and found.comparisons
    assert [(c.a, c.b) for c in found.comparisons] == [(c.a, c.b) for c in expected.comparisons]


@pytest.mark.parametrize("name", ON_THE_BOARD)
def test_without_rows_there_is_no_verdict(tmp_path, name):
    row = scoreboard.row(name, tmp_path)
    assert (row.judged, row.done) == (None, 0) and row.planned > 1
    assert f"no verdict yet, 0 of {row.planned:,} planned runs." in scoreboard.details(row)


def test_damaged_results_are_not_shown(results):
    with (results / "gradients.jsonl").open("a", encoding="utf-8") as file:
        file.write("{}\n")
    with pytest.raises(ResultsError, match=r"gradients\.jsonl.*line 561"):
        scoreboard.row("gradients", results)


def test_an_experiment_without_a_line_is_named(monkeypatch):
    monkeypatch.setattr(scoreboard, "CLAIMS", {})
    with pytest.raises(ValueError, match=r"'gradients' must stand in bnbook\.experiments\.scoreboard\.CLAIMS"):
        scoreboard.row("gradients")


def test_a_line_without_experiments_is_in_the_table(monkeypatch):
    monkeypatch.setattr(scoreboard, "CLAIMS", {"It does the laundry.": {}})
    assert scoreboard.table([]).splitlines()[-1] == "| **It does the laundry.** | no verdict yet |  |"


# The picture


def conditions(delta: float, metric: str = "test_accuracy") -> list[Comparison]:
    """Effects of 3, −2 and 0 δ, one with a run that has no value."""
    wiggle = (-0.01, 0.0, 0.01)
    made = [
        Comparison(
            f"{d} δ",
            {s: delta * (d + w) for s, w in enumerate(wiggle)},
            dict.fromkeys(range(3), 0.0),
            metric=metric,
        )
        for d in (3, -2, 0)
    ]
    broken = Comparison("diverged", {0: None, 1: 0.0, 2: 0.0}, dict.fromkeys(range(3), 0.0), metric=metric)
    return [*made, broken]


@pytest.mark.parametrize(("name", "unit"), [("depth", 100), ("gradients", 1)])
def test_the_forest_shows_every_condition_by_name_in_plain_units(name, unit):
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.colors import to_hex

    from bnbook import plotting

    row = scoreboard.row(name)
    delta = unit * row.experiment.delta
    made = conditions(row.experiment.delta, row.experiment.metric)
    judged = experiments.verdict(made, row.experiment.delta)
    rows = [
        dataclasses.replace(row, judged=judged, comparisons=made),
        dataclasses.replace(row, title="Nothing yet", done=3, judged=None, comparisons=()),
    ]
    figure = scoreboard.forest(rows)
    try:
        (ax,) = figure.axes
        words = [text.get_text() for text in ax.texts]
        title, names, numbers = words[0], words[1:5], words[5:]
        assert title == f"{row.title}: {judged.word.partition(' on ')[0]}" and names == [c.name for c in made]
        assert len(numbers) == 3 and numbers[0].startswith("+1.50 [" if unit == 100 else "32 [")
        dots = {
            round(float(x) / delta, 6): (line.get_marker(), to_hex(line.get_color()))
            for line in ax.lines
            if line.get_linestyle() == "None"
            for x in line.get_xdata()
        }
        assert dots == {
            3.0: ("o", plotting.GREEN.lower()),
            -2.0: ("s", plotting.PURPLE.lower()),
            0.0: ("D", plotting.GREY.lower()),
        }
        bars = [bar for lines in ax.collections if isinstance(lines, LineCollection) for bar in lines.get_segments()]
        bars.sort(key=lambda bar: bar[0][1])  # by the line that they stand on
        for bar, comparison, name in zip(bars, made, ax.texts[1:], strict=False):
            assert 0 < bar[0][1] - name.get_position()[1] < 1, "the interval stands closely below its name"
            low, high = (float(x) / unit for x, _ in bar)
            assert (low, high) == pytest.approx((comparison.difference.low, comparison.difference.high))
        assert len(bars) == 3
        (band,) = (lines.get_datalim(ax.transData) for lines in ax.collections if isinstance(lines, PolyCollection))
        assert (band.x0, band.x1, band.height) == pytest.approx((-delta, delta, 8))
    finally:
        plt.close(figure)


def test_every_unit_has_a_panel(board):
    import matplotlib.pyplot as plt

    figure = scoreboard.forest(board)
    try:
        words = {"points of test accuracy": "points of accuracy"}
        units = {
            row.name: words.get(e := row.experiment.effect, "as a factor" if e[:5] == "times" else e) for row in board
        }
        shown = dict.fromkeys(units[row.name] for row in board if row.comparisons)
        assert [ax.get_xlabel() for ax in figure.axes] == list(shown) and len(shown) == 4
        for ax in figure.axes:
            of_unit = []  # claims, and under each its conditions
            for row in (row for row in board if row.judged and units[row.name] == ax.get_xlabel()):
                names, outcomes = [c.name for c in row.comparisons], row.judged.outcomes
                for outcome in OUTCOMES if row.experiment.rows_of != row.name else OUTCOMES[2:4]:
                    small = [name for name in names if outcomes.get(name) == outcome]
                    if len(row.comparisons) > 8 and len(small) > 1:
                        names = [*(n for n in names if n not in small), f"{len(small)} others, {outcome}"]
                of_unit += [f"{row.title}: {row.judged.word.partition(' on ')[0]}", *names]
            assert [text.get_text() for text in ax.texts][: len(of_unit)] == of_unit
            assert any("others" in name for name in of_unit) == (ax.get_xlabel() == "points of accuracy")
            low, high = ax.get_xlim()
            ends = [x for lines in ax.collections for path in lines.get_paths() for x in path.vertices[:, 0]]
            assert low < min(ends) and max(ends) < high
    finally:
        plt.close(figure)


def test_a_condition_without_a_value_has_a_row_of_dashes(results):
    row = scoreboard.row("gradients", results)
    made = conditions(row.experiment.delta)
    judged = experiments.verdict(made, row.experiment.delta)
    text = scoreboard.details(dataclasses.replace(row, judged=judged, comparisons=made))
    assert "| diverged | – | – | open | – |" in text and judged.outcomes["diverged"] == OPEN


# The first table


def test_every_situation_has_conditions_and_says_what_they_say(board):
    """A name that is changed in a claim must not empty a line."""
    rows = {row.name: row for row in board}
    text = scoreboard.answers(rows)
    tables = [[line for line in part.splitlines() if line[:1] == "|"] for part in text.split("<details>")]
    assert "</details>" in text and len(scoreboard.FIRST) <= 13
    lines, known = [], []
    for table, situations in zip(tables, (scoreboard.FIRST, scoreboard.MORE), strict=True):
        body, mine = table[2:], sorted((s for s in situations if rows[s.experiment].judged), key=lambda s: s.change)
        head = body.index(f"| {' | '.join(scoreboard.CHANGES)} |")
        assert [s.change for s in mine] == [i >= head for i in range(len(mine))] and body.pop(head)
        lines, known = lines + body, known + mine
    for situation in scoreboard.FIRST + scoreboard.MORE:
        row = rows[situation.experiment]
        if not row.judged:
            assert f"[{row.title}](#{row.anchor}) ({row.done:,} of {row.planned:,} runs)" in text.split("</details>")[1]
    for line, situation in zip(lines, known, strict=True):
        row = rows[situation.experiment]
        found = [c for c in row.comparisons if situation.holds(c)]
        assert found, situation.words
        of_accuracy = row.experiment.metric == "test_accuracy"
        failed = [[[of_accuracy and score <= 0.6 for score in arm.values()] for arm in (c.a, c.b)] for c in found]
        mixed = [any(0 < sum(runs) < len(runs) for runs in both) for both in failed]
        effects = [
            median([c.a[s] - c.b[s] for s in c.seeds]) if m else c.difference.mean
            for c, m in zip(found, mixed, strict=True)
        ]
        sign = -1 if " more test loss" in line else 1
        assert sign == 1 or max(effects) < 0
        ends = [float(x.replace("−", "-")) for x in re.search(r"\*\*(.*?)\*\*", line)[1].split(" to ")]
        unit = {"points": lambda m: 100 * m, "times": lambda m: 10**m}.get(row.experiment.effect.split()[0], float)
        expected = [unit(m) for m in sorted(sign * m for m in (min(effects), max(effects)))]
        assert [ends[0], ends[-1]] == pytest.approx(expected, rel=0.06, abs=0.006)
        assert all(row.judged.outcomes[c.name].split(",")[0] in line for c in found)
        expected = {}
        for side, arm in enumerate(found[0].arms):
            runs = [run for both in failed for run in both[side]]
            if any(mixed) and any(runs):
                expected[arm] = sum(runs), len(runs)
        said = re.search(r"middle pairs; (.*) below", line)
        told = [re.match(r"(\d+) of (\d+) (.*)", part).groups() for part in (said[1].split(" and ") if said else [])]
        assert {arm: (int(n), int(m)) for n, m, arm in told} == expected
        steps = sorted({row.experiment.updates(setting) for c in found for setting in c.settings})
        updates = " to ".join(f"{n:,}" for n in dict.fromkeys([steps[0], steps[-1]]))
        assert (f", {updates} updates |" in line) == (not is_factor(row.experiment.metric))
        if len(found) == 1 and of_accuracy and not any(mixed) and abs(effects[0]) > 0.01:
            levels = [float(x) for x in re.search(r"from ([\d.]+) to ([\d.]+)", line).groups()]
            assert levels[1] - levels[0] == pytest.approx(100 * found[0].difference.mean, abs=0.11)


def test_the_batches_are_as_large_as_the_page_says(page):
    """Where a row does not name them."""
    said = "in batches of 128 (for 50,000 images: 64)"
    assert any(said in cell.source for cell in page.cells)
    used = {experiments.find(s.experiment).rows_of for s in scoreboard.FIRST + scoreboard.MORE} - {"small_batches"}
    sizes = {name: importlib.import_module(f"bnbook.experiments.claims.{name}").BATCH_SIZE for name in used}
    assert sizes.pop("full_size") == 64 and len(sizes) > 5 and set(sizes.values()) == {128}


def test_it_is_said_what_the_first_choice_would_have_given(tmp_path, board):
    """Two seeds that praise a rate at which batch normalization fails would have chosen it, and lost."""
    import json

    bad = {"arm": "BN", "init": "he", "lr": 10.0}
    row = next(row for row in board if row.name == "noise")
    assert "; ".join(row.judged.outcomes.values()) == "reversed; reversed"
    said = scoreboard.chosen_again([row])
    assert said.endswith("This changed 0 of 2 effects (0 moved in favour of their claim), and the outcome of 0.")
    once = dataclasses.replace(row, experiment=experiments.find("covariate_shift"), title="Once")
    assert scoreboard.chosen_again([row, once]) == said  # on five seeds from the start
    for file in experiments.RESULTS.glob("noise.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / "noise.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert sum(line["setting"] == bad and line["phase"] == "confirm" for line in lines) == 12
    for line in lines:
        if line["setting"] == bad and line["seed"] < 2:
            line["val_accuracy"] = 0.95
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    said = scoreboard.chosen_again([scoreboard.row("noise", tmp_path)], tmp_path)
    assert "This changed 1 of 2 effects (1 moved in favour of their claim), and the outcome of 1:" in said
    (line,) = (line for line in said.splitlines() if "(#scoreboard-noise), He weights |" in line)
    then, now = (float(x.replace("−", "-")) for x in re.findall(r"([−+][\d.]+) points \[", line))
    (same,) = (100 * c.difference.mean for c in row.comparisons if c.name == "He weights")
    assert (
        now == pytest.approx(same, abs=0.006)
        and then < -10
        and ", open | " in line
        and line.endswith(", **reversed** |")
    )


def test_the_first_confirmation_stands_beside_the_second(tmp_path, board, monkeypatch):
    """Counted here by other code; what the first confirmation says changes no verdict."""
    import json

    import numpy as np
    from scipy import stats

    row = next(row for row in board if row.name == "regularization")
    said = scoreboard.confirmed_again([row])
    assert f"of {len(row.comparisons)} effects" in said and said.count("(#scoreboard-regularization)") == 4
    rows = [
        json.loads(line)
        for line in (experiments.RESULTS / "regularization.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    differ, moved = 0, 0
    for c in row.comparisons:
        both = [
            {r["seed"]: r["test_accuracy"] for r in rows if r["setting"] == setting and r["seed"] >= 100}
            for setting in c.settings[:2]
        ]
        d = {seed: both[0][seed] - both[1][seed] for seed in both[0]}
        first, second = ([x for seed, x in d.items() if seed // 100 == k] for k in (1, 2))
        assert np.mean(second) == pytest.approx(c.difference.mean)
        differ += stats.ttest_ind(first, second, equal_var=False).pvalue < 0.05
        (line,) = (line for line in said.splitlines() if f"), {c.name} |" in line)
        effects = [float(x.replace("−", "-")) for x in re.findall(r"([−+][\d.]+) points \[", line)]
        assert effects == pytest.approx([100 * np.mean(first), 100 * np.mean(second)], abs=0.006)
        words = re.findall(r"\], \**([a-z, ]+?)\** \|", line)
        assert ("**" in line) == (words[0] != words[1]) and words[1] == row.judged.outcomes[c.name]
        moved += words[0] != words[1]
    assert f" {differ} moved by more than chance" in said and f"the outcome of {moved} is another" in said
    for file in experiments.RESULTS.glob("regularization.*"):
        shutil.copy(file, tmp_path)
    for r in rows:
        if r["seed"] // 100 == 1 and r["setting"]["norm"] == "batch":
            r["test_accuracy"], r["correct"] = r["test_accuracy"] + 0.05, None
    (tmp_path / "regularization.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    (tmp_path / "regularization.correct.npz").unlink()
    higher = scoreboard.row("regularization", tmp_path)
    assert higher.judged == row.judged
    assert "of 4 effects 4 moved by more than chance" in scoreboard.confirmed_again([higher], tmp_path)
    assert (
        f"Where all is chance, about {round(0.05 * len(row.comparisons))} would" in said and "not all run" not in said
    )
    monkeypatch.setattr("bnbook.experiments.claims.regularization.CONFIRMATION", 1)
    waiting = dataclasses.replace(row, experiment=experiments.find("regularization"))
    assert scoreboard._planned_again([row, waiting], experiments.RESULTS) == ["regularization"]
    monkeypatch.undo()
    fewer = [r for r in rows if not (r["seed"] == 239 and r["setting"] == rows[-1]["setting"])]
    assert len(fewer) == len(rows) - 1
    (tmp_path / "regularization.jsonl").write_text("".join(json.dumps(r) + "\n" for r in fewer), encoding="utf-8")
    missing = scoreboard.row("regularization", tmp_path)
    assert missing.judged is None and (missing.done, missing.planned) == (row.done - 1, row.planned)
    assert row.planned > 33 * (11 + 40)
    once = scoreboard.confirmed_again([next(row for row in board if row.name == "depth")])
    assert once.endswith("). No experiment has been confirmed again.")


def test_widths_are_counted(board):
    found = [(c.difference, row.experiment.delta) for row in board for c in row.comparisons]
    halves = [((d.high - d.low) / 2, abs(d.mean), delta) for d, delta in found]
    narrow = sum(half <= delta / 2 for half, _, delta in halves)
    enough = sum(delta / 2 < half <= (mean - delta) / 2 for half, mean, delta in halves)
    said = [int(n) for n in re.findall(r"\d+", scoreboard.widths(board).replace("δ/2", ""))]
    assert said[:4] == [len(halves), narrow, enough, len(halves) - narrow - enough] and 0 < said[4] < said[3]


def test_every_setting_that_is_judged_was_chosen_on_five_seeds():
    plans = [study.plan(study.file()) for study in map(experiments.find, experiments.names())]
    chosen_on = {plan.experiment: plan.chosen_on for plan in plans if plan}
    assert len(chosen_on) == 16 and set(chosen_on.values()) == {5}


def test_a_condition_that_only_one_of_the_choices_has_is_told(board):
    """By plain SGD from the default weights two seeds chose two rates, which could be told apart, and five one."""
    row = next(row for row in board if row.name == "rate_is_the_reason")
    lost = "SGD, default weights"
    assert lost not in row.judged.outcomes
    said = scoreboard.chosen_again([row])
    (line,) = (line for line in said.splitlines() if f", {lost} |" in line)
    assert ", reversed | " in line and line.endswith(" | –, **no test** |")
    assert "This changed 1 of 3 effects (0 moved in favour of their claim), and the outcome of 1:" in said


def test_the_size_that_a_source_names_is_counted(board):
    rows = {row.name: row for row in board}
    assert "the size that it names, 14 times, is reached in 0 and excluded in 2 of 2" in rows["faster"].quoted


def test_no_effect_is_left_of_pure_noise_when_all_conditions_are_corrected_for(board):
    import numpy as np

    rng = np.random.default_rng(0)
    row = next(row for row in board if row.name == "depth")
    made = [
        Comparison(f"c{i}", dict(enumerate(rng.normal(0, 0.02, 5))), dict.fromkeys(range(5), 0.0)) for i in range(60)
    ]
    judged = experiments.verdict(made, row.experiment.delta)
    text = scoreboard.many([dataclasses.replace(row, judged=judged, comparisons=made)])
    assert " 0 survive Holm's correction for all 60 together" in text and "and 0 that of Benjamini" in text
    clear = [dataclasses.replace(c, a={s: v + 1 for s, v in c.a.items()}) for c in made]
    judged = experiments.verdict(clear, row.experiment.delta)
    assert " 60 survive" in scoreboard.many([dataclasses.replace(row, judged=judged, comparisons=clear)])


def test_a_row_links_to_its_chapter_where_the_contents_list_it(results, tmp_path, monkeypatch):
    row = scoreboard.row("gradients", results)
    assert "See [chapter 13](13_signals.ipynb)." in scoreboard.details(row)
    monkeypatch.setattr(scoreboard, "BOOK", tmp_path / "book")
    assert "See chapter 13." in scoreboard.details(row)
    (tmp_path / "_toc.yml").write_text("chapters:\n  - file: book/13_other\n", encoding="utf-8")
    assert "See [chapter 13](13_other.ipynb)." in scoreboard.details(row)
