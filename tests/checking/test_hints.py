"""A mistake that a checker recognizes is named; another mistake is not called by that name.

The answers are wrong ones of `chapters/test_chNN.py`, by the index or the name that they have there in `WRONG`. Nothing
is asked of those with "": on some cases their result is that of another mistake.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from bnbook.checking import check, exercises
from bnbook.checking.exercises import Wrong, recognized, same

EXCHANGED = "They are exchanged"  # the two inputs of a bug of chapter 6
NAMED = {
    "ch00.grad_logits": {0: "The sign is wrong", 1: "not its most likely class", 2: "softmax alone", 3: "0.3333 times"},
    "ch00.layer_backward": {0: "The ReLU is missing", 1: "sees the bias"},
    "ch00.largest_rate": {0: "overshoots", 1: "the flattest direction", 2: "the mean curvature"},
    "ch01.factor": {
        "ReLU": "factor of ReLU",
        "slope not squared": "takes the slope squared",
        "no half": "Only half of the values",
        "root": "the root mean square",
    },
    "ch01.standardize": {
        "each its own": "its own statistics",
        "both together": "have a say",
        "one for all features": "Every feature has a mean",
        "m - 1": "not by m − 1",
    },
    "ch01.weight_std": {"variance for deviation": "That is a variance", "Glorot for both": ""},
    "ch02.output_variance": {
        0: "for ε = 0 only",
        1: "the square of what scales",
        2: "what ε takes away",
        3: "inside the root",
    },
    "ch02.normalize": {
        "per position": "those of one position",
        "no eps": "ε is missing",
        "unbiased": "not by m − 1",
        "eps outside": "inside the root",
        "per example": "those of one example",
        "instance": "one channel of one example",
        "variance": "take the root",
        "centred": "centred only",
    },
    "ch03.without_start": {
        "divides without subtracting": "The start is still in it",
        "subtracts without dividing": "do not yet add up",
        "the other momentum": "weight of the new value",
    },
    "ch03.update": {
        "biased": "divides by m − 1",
        "momentum reversed": "weight of the new value",
        "None as 0.1": "not a fixed one",
        "nothing": "has not moved",
    },
    "ch03.pool": {
        "plain mean of the variances": "and the means differ",
        "inside only": "That is inside the batches",
        "sizes ignored": "A larger batch has a larger say.",
        "unbiased": "not by one less",
    },
    "ch03.order": {"the sorted values": "return their indices"},
    "ch04.center": {"direct path only": "through μ is missing", "the path with the wrong sign": "the other sign"},
    "ch04.scale": {
        "direct path only": "through the mean square is missing",
        "batch normalization": "that is batch normalization",
        "no eps": "ε is missing",
    },
    "ch04.dx": {
        "no mean path": "through the mean is missing",
        "no variance path": "through the variance is missing",
        "no gamma": "γ is missing",
        "evaluation": "That is evaluation",
        "per pixel": "over the batch alone",
        "unbiased": "not by m − 1",
    },
    "ch05.statistics": {
        "unbiased": "not by m − 1",
        "per pixel": "one for every position",
        "deviation": "the standard deviation",
        "kept axes": "The values are right",
    },
    "ch05.forward": {
        "eps outside": "inside the root",
        "the batch's own statistics": "not that of the batch",
        "no bias": "β is missing",
        "no weight": "γ is missing",
    },
    "ch05.update": {
        "biased": "the unbiased variance",
        "momentum reversed": "weight of the new value",
        "does not count this batch": "This batch counts",
        "counts one too many": "one off",
        "mean alone": "has not moved",
    },
    "ch05.backward": {
        "no mean path": "through the mean is missing",
        "no variance path": "through the variance is missing",
        "no gamma": "γ is missing",
        "always training": "In evaluation the statistics are constants",
        "always evaluation": "In training the statistics depend on x",
        "means for sums": "do not average",
        "gradients swapped": "for the bias",
    },
    "ch05.layer": {
        "biased variance": "the unbiased one",
        "momentum reversed": "weight of the new value",
        "updates in evaluation": "In evaluation the running statistics stay",
        "backward ignores the mode": "the statistics are constants",
        "the mode of now": "the forward pass before it",
        "running statistics in training": "evaluation the running ones",
        "None is the default": "not the default",
        "in place": "work on a copy",
        "eps ignored": "eps is that",
    },
    "ch05.state": {
        "references": "save copies",
        "keeps what it loads": "load copies",
        "parameters only": "were not loaded",
        "the count forgotten": "The count of batches",
    },
    "ch05.from_output": {
        "evaluation": "gradient of evaluation",
        "y for x_hat": "y is not x̂",
        "bias forgotten": "β is still in it",
        "gamma forgotten": "γ is missing",
    },
    "ch06.largest_m": {
        "of the variance": "ratio of the variances",
        "small tolerances": "no approximation is needed",
        "against the wrong output": "against the right output",
    },
    "ch06.quiet_std": {
        "where the variance is eps": "There σ² is ε",
        "eps itself": "There σ is ε",
        "ordinary": "an ordinary spread",
        "a little large": "It is smaller",
    },
    "ch06.accepts": {
        "everything": "It accepts everything",
        "to the last digit": "finer than the arithmetic",
        "grad x alone": "the gradients of γ and β as well",
        "upstream ones": "an upstream gradient of ones",
        "tiny eps": "ε that matters",
        "squares": "ε that matters",
        "one γ": "different γ",
    },
    "ch06.bug1": {"exchanged": EXCHANGED, "both hide": "Pixels of one channel", "constant": "is constant"},
    "ch06.bug2": {"exchanged": EXCHANGED, "not long enough": "By what factor", "still too long": "the fewer values"},
    "ch06.bug3": {"exchanged": EXCHANGED, "not quite": "wherever it stands", "scaled up": "ε has to matter"},
    "ch06.bug4": {"exchanged": EXCHANGED, "both new": "Neither may have", "γ of zero": "A weight of 0"},
    "ch06.bug5": {"exchanged": EXCHANGED, "both small": "nearly equal numbers", "both large": "of its own size"},
    "ch06.bug6": {"exchanged": EXCHANGED, "both a half": "have to differ", "both a tenth": "For which momentum"},
    "ch06.bug7": {"exchanged": EXCHANGED, "both large": "far from 1", "hardly a say": "must not matter"},
    "ch06.bug8": {"exchanged": EXCHANGED, "zeros": "zero in a channel", "without its mean alone": ""},
    "ch06.bug9": {"exchanged": EXCHANGED, "both new": "those of a new layer", "β left": "the same as x̂"},
    "ch06.bug10": {"exchanged": EXCHANGED, "both new": "that of a new layer", "ones": "one of three terms"},
    "ch06.bug11": {"exchanged": EXCHANGED, "both without": "needs a mean", "both with a mean": "the sum and the mean"},
    "ch06.bug12": {"exchanged": EXCHANGED, "trains alone": "should train", "standardized, biased": "do they stay"},
    "ch06.bug13": {"exchanged": EXCHANGED, "evaluated in between": "has to change", "trained in between": "must not"},
    "ch06.bug14": {"exchanged": EXCHANGED, "fresh": "a bias in front", "both with a bias": "when is that the same"},
    "ch07.covering": {0: "behind the last one", 1: "Near the ends", 2: "once the border is there"},
    "ch07.shifted": {0: "flipped", 1: "all channels", 3: "a padded image"},
    "ch08.counts": {0: "Running statistics", 1: "γ and β are parameters", 2: "of one channel", 3: "positions count"},
    "ch08.evaluate": {3: "weigh it by its length", 5: "a mean is asked for"},
    "ch09.running_gap": {
        "divided by m": "m/(m − 1) times",
        "in the long run": "after very many steps",
        "one step": "after one step",
        "momentum reversed": "weight of the new value",
        "the other way round": "The sign is wrong",
    },
    "ch09.fc_weight": {"transposed": "in Keras's order", "width before height": "are exchanged"}
    | dict.fromkeys(("channels last", "shape taken for (C, H, W)"), "in Keras's order"),
    "ch09.worst_std": {
        "where the larger eps is the variance": "go back",
        "where the smaller eps is the variance": "go on",
        "in the middle": "geometric mean",
        "the variance": "the variance of the input",
    },
    "ch10.update_time": {
        "one after the other": "at the same time",
        "the slower of the two": "works alone",
        "as if the launches were slower": "where the CPU is the slower",
    },
    "ch10.snapshot": {
        "without copies": "has changed since it was taken",
        "copied one level deep": "has changed since it was taken",
        "without momentum": "has a memory",
        "without random numbers": "random numbers do not go on",
    },
    "ch11.optimism": {"two only": "for two rates", "standard error": "the mean of all", "the usual bound": "its limit"},
    "ch11.updates_to": {"no lines": "a line there", "as if it never fell": ""},  # where it gives a mark
    "ch12.rest": {
        "squared": "the square of the length",
        "the fourth power": "the fourth power",
        "decay not squared": "is squared, too",
    },
    "ch12.rising": {
        "constant": "A constant rate",
        "one power": "change, both",
        "even power": "decay of the step itself",
        "falling": "has to rise",
    },
    "ch12.normalize_once": {
        "no ReLU": "ReLU stands between",
        "centred": "not the variance",
        "row by row": "not one for each unit",
        "the old signal": "behind the scaled layers",
    },
    "ch13.growth": {
        "mean square for variance": "have a mean",
        "of the norm": "not of its square",
        "inverted": "upside",
    },
    "ch13.similarity": {
        "of the mean": "not their mean",
        "with the diagonal": "no row",
        "rounding": "larger than 1",
        "one layer more": "too many",
    },
    "ch14.factor": {"many blocks only": "very many blocks", "not the root": "That is α²"},
    "ch14.skipinit": {
        "no skip in the output": "The skip is missing",
        "no alpha": "alpha is missing.",
        "only the skip back": "through the branch is missing",
        "only the branch back": "through the skip is missing",
        "alpha twice": "does not contain alpha",
        "mean, not sum": "do not average",
        "one per example": "add up over them",
    },
    "ch15.noise": {
        "the mean alone": "σ is noisy as well",
        "a variance": "That is the variance",
        "deviations added": "not their standard deviations",
        "the variance's noise": "half as noisy",
    },
    "ch15.calibration_error": {
        "bins count alike": "with the share of the examples",
        "the last edge lost": "exactly 1",
        "no bins": "all examples together",
        "every example": "the means of a bin first",
    },
    "ch16.shift": {
        "upside down": "upside down",
        "without the mean": "scales the mean",
        "the share": "scales the mean",  # with one input it is the same
        "not divided by 1 - q": "another variance than q",
        "inputs independent": "go together",
        "one mask for all": "a mask of its own",
    },
    "ch16.absorb": {
        "without eps": "ε is missing",
        "without beta": "β goes into the bias",
        "the mean added": "The mean is subtracted",
    },
    "ch17.guaranteed": {"first order": "does not stay", "no half": "at the end of the step"},
    "ch17.gradient_shift": {
        "all layers updated": "and those behind it do not move",
        "itself as well": "Layer i itself",
        "the layer before alone": "not only the one",
        "those behind": "not those behind it",
    },
    "ch18.interval": {
        "normal": "normal quantile",
        "unpaired": "are paired",
        "biased sd": "estimated with one less",
        "one-sided": "two ends",
        "no root of k": "where one difference lies",
        "k degrees of freedom": "degree of freedom",
        "reversed": "a − b",
    },
    "ch20.leaves": {
        "sign": "The sign is wrong",
        "mean not divided": "divided by the wrong standard deviation",
        "factor to zero": "has the factor 1, not 0",
        "variance": "take its root",
    },
    "ch20.momentum": {
        "shared out": "The parts are not added",
        "what is left": "what is left, not what is taken",
        "the other way round": "with the given momentum",
        "root of the momentum": "The root is that of what is left",
    },
    "ch20.stall": {"the goal": "the goal; it never", "the goal, rounded": "rounded; it never gets there"},
}
LONG = ("ch01.weight_std",)


def wrong(exercise: str) -> dict:
    group = importlib.import_module(f"tests.checking.chapters.test_{exercise[:4]}").WRONG[exercise]
    return group if isinstance(group, dict) else dict(enumerate(group))


@pytest.mark.parametrize(
    "exercise", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in NAMED]
)
def test_a_mistake_is_called_by_its_name(exercise: str) -> None:
    """On cases that are drawn anew; what is said of one mistake is said of no other."""
    words = NAMED[exercise]
    said = {key: check(exercise, answer).message for key, answer in wrong(exercise).items()}
    assert {key: part for key, part in words.items() if part not in said[key]} == {}, said
    for key, part in words.items():
        others = {
            other for other, message in said.items() if part and part in message and words.get(other) not in (part, "")
        }
        assert others == set(), f"they get what is said of {key}"


def test_a_mistake_is_one_of_the_known_or_none() -> None:
    mistakes = {"It is doubled.": [2.0, 4.0], "It is shifted.": [2.0, 3.0]}
    assert recognized([2.0, 4.0], mistakes, "Think.") == "It is doubled."
    assert recognized([2.0, 4.1], mistakes, "Think.") == recognized("2, 4", mistakes, "Think.") == "Think."
    assert recognized([2.0, 4.1], mistakes, tol=0.5) == "", "it could be either"
    assert recognized(1.0, {"No number.": np.nan, "No end.": np.inf}) == ""
    assert recognized(np.nan, {"No number.": np.nan, "No end.": np.inf}) == "No number."


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ([[-1.0, -2.0, -4.0]], "The sign is wrong."),
        ([[2.0, 4.0, 8.0]], "Every value is 2 times what it should be."),
        ([[1.0], [2.0], [4.0]], "It is transposed."),
        ([1.0, 2.0, 4.0], "got (3,). The values are right."),
        ([[1.0, 2.0, 4.1]], "Think."),
        ([[1.001, 2.002, 4.004]], "Think."),
        ([[0.0, 0.0, 0.0]], "Think."),
        ([[4.0, 2.0, 1.0]], "It is reversed."),
    ],
)
def test_what_is_said_in_every_exercise(got, said) -> None:
    with pytest.raises(Wrong) as error:
        same(got, [[1.0, 2.0, 4.0]], "It", hint="Think.", mistakes={"It is reversed.": [[4.0, 2.0, 1.0]]})
    assert str(error.value).endswith(said)


def test_what_is_named_is_an_exercise() -> None:
    for exercise in NAMED:
        importlib.import_module(f"bnbook.checking.chapters.{exercise[:4]}")
    assert set(NAMED) <= set(exercises._CHECKERS)
