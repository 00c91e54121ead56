"""One module for each measured claim, and the engine that runs, keeps and judges them.

    python -m bnbook.experiments list
    python -m bnbook.experiments run learning_rate --jobs 2
    python -m bnbook.experiments show learning_rate
    python -m bnbook.experiments status

An experiment is one file `bnbook/experiments/claims/NAME.py` (or a file in the folder that the
environment variable BNBOOK_EXPERIMENTS names). It is found by its name, and holds:

    QUESTION: str        one sentence
    CLAIM: str           the source's own sentence
    FOLKLORE: str        the form in which people repeat it
    SOURCE: str          its key in book/references.bib
    CHAPTER: int
    VERSION: int         of what a run does and a row holds; raise it and all older rows are stale
    DATASET: str         as figures name it: "Fashion-MNIST, 10,000 images of 14x14"
    NETWORK: str
    STEPS: int           the budget of updates of a run

    METRIC = "test_accuracy"   what is compared; of accuracies, differences are points, of powers of ten, factors
    EFFECT = "points of test accuracy"   the unit of the effect, in the words that people use
    DELTA = POINTS.delta       the smallest effect worth having δ, in units of METRIC: from `policy`
    SIZE = 0.0                 the size that the source names, against which the effect is held as well
    NEEDS_MORE = False         True: the source's words, as "dramatically", ask for more than δ; less contradicts them
    SCOPE = ""                 the setting that the source's sentence speaks of, in words; none: of every condition
    SEEDS = 5                  planned before the first row; fewer give no verdict
    CHANCE = 0.1               the worst value of METRIC and of validation: that of a diverged run; None: there is none
    CONFIRM = False            True: the SEEDS choose, and the verdict is from fresh seeds (see below)
    CONFIRMATION = 1           which of several confirmations, each on seeds of its own, the verdict is from
    FACTOR = "the condition"   what the conditions vary; of several things a tuple, and a comparison has their `levels`

    def grid(quick: bool = False) -> list[dict]:
        '''The settings: flat dicts of strings, numbers, booleans and None, the same keys in each; quick: minutes.'''

    def run(setting: dict, seed: int) -> dict:
        '''The measurements of one run, the same again for the same arguments on one machine.'''

    def steps_of(setting: dict) -> int:
        '''How many updates a run makes, where settings differ in it and STEPS is the most. May be left out.'''

    def comparisons(rows: list[dict]) -> list[Comparison]:
        '''The primary comparison, in each of its conditions: A minus B, paired by seed.'''

    def in_scope(comparison: Comparison) -> bool:
        '''Whether a condition is within SCOPE. May be left out where SCOPE is.'''

    def beside(rows: list[dict]) -> list[dict]:
        '''Settings that fresh seeds run as well, although no verdict reads them. May be left out.'''

    def figure(rows: list[dict]) -> matplotlib.figure.Figure:
        '''The figure that answers the question.'''

The constants with "=" may be left out; these are their values then. A row is what `run` returned, and beside it
"experiment", "version", "setting" (the dict), "seed", "diverged", "seconds" and "provenance":

    {"experiment": "learning_rate", "version": 1, "setting": {"norm": "batch", "lr": 0.1}, "seed": 0,
     "test_accuracy": 0.87, "val_accuracy": 0.88, …, "diverged": false, "seconds": 4.2, "provenance": {…}}

`run` must measure METRIC, or what MEASURED says where METRIC is a measure of several rows together. Settings are
chosen by "val_accuracy" unless `best` is told otherwise. "correct" is the vector of booleans that says which test
images were right: it is stored as `engine.bits.pack_bits` makes it, and gives the bootstrap over images. Once all
planned runs are there, only the rows that comparisons read keep theirs, in NAME.correct.npz (`engine.completion`).
Arrays become lists, NaN and infinities None. "diverged" is True where METRIC came out as None, or where `run` says so
itself. A run that raises has no row. Import torch and matplotlib where you need them: `import bnbook.experiments`
imports neither, nor NumPy. `comparisons` is usually::

    from bnbook.experiments import best, compare, select

    def comparisons(rows):
        return [
            compare(
                f"{init} init, each at its best rate",
                best(select(rows, norm="batch", init=init), over="lr"),
                best(select(rows, norm="none", init=init), over="lr"),
                arms=("with BN", "without BN"),
            )
            for init in ("default", "he")
        ]

`judge(rows)` is the verdict on FOLKLORE in all conditions, `judge(rows).quoted` that on CLAIM in those within SCOPE.

A second claim on the same runs is a file that says `ROWS = "learning_rate"`. It holds QUESTION, CLAIM, FOLKLORE,
SOURCE, CHAPTER, METRIC, DELTA, comparisons and figure; VERSION, SEEDS, CHANCE, CONFIRMATION, DATASET, NETWORK, STEPS,
grid and run are those of the other. METRIC need not be in the rows. `load("faster")` returns the rows,
`judge(rows, "faster")` the verdict.

A study, `bnbook/experiments/studies/NAME.py`, is measured in the same way but answers no claim: it has QUESTION,
CHAPTER, VERSION, grid and run, and the other constants where they make sense. `find(name)` makes an `Experiment` or a
`Study` of a file: a frozen dataclass whose fields have the names of the constants in small letters.

With CONFIRM the runs of SEEDS choose: `best` takes the setting that is best on validation. When all are there, a plan
is written beside them, NAME.plan.json: the settings that the comparisons read, and how many fresh seeds, 100 and on,
are to confirm them, from the scatter of the pilot (`engine.plan`). A larger SEEDS later chooses again: the plan takes
the settings of all seeds, and the number of fresh ones stays. A larger CONFIRMATION confirms them again: on other
seeds, 200 and on, of a number that the scatter of the first confirmation says; what that said stays beside it.
`best(...).rows` are then rows of fresh seeds, and `judge` takes no others. A comparison made by hand names its
`settings`, and reads `fresh(rows)`; what shows how a setting was chosen reads `pilot(rows)`.

`Comparison(name, a, b)` takes any values by seed, such as the width of a range of rates made of many rows. Raise
`Incomplete` where rows are missing; `best` and `compare` do. On the pages: `load`, `judge`, `provenance_line`, `cost`.
"""

from .engine.experiment import (
    RESULTS,
    Experiment,
    Study,
    cost,
    find,
    judge,
    load,
    names,
    provenance_line,
    study_names,
)
from .engine.runs import run
from .engine.statistics import Choice, Comparison, Incomplete, PairedDifference, best, compare, fresh, pilot, select
from .engine.verdict import Verdict, verdict

__all__ = [
    "RESULTS",
    "Choice",
    "Comparison",
    "Experiment",
    "Incomplete",
    "PairedDifference",
    "Study",
    "Verdict",
    "best",
    "compare",
    "cost",
    "find",
    "fresh",
    "judge",
    "load",
    "names",
    "pilot",
    "provenance_line",
    "run",
    "select",
    "study_names",
    "verdict",
]
