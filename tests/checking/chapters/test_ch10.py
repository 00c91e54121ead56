"""The checkers of chapter 10 accept the solutions and reject what only looks like one."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from bnbook.checking.chapters.ch10 import CHANGES, REASONS, timeline
from tests.train.training import SMALL, equal, few_images_are_scored, quiet, tensors  # noqa: F401


def update_time(n, launch, kernel):
    return launch + (n - 1) * max(launch, kernel) + kernel


def snapshot(model, optimizer):
    return copy.deepcopy(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
    )


def without_copies(model, optimizer):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}


def copied_one_level_deep(model, optimizer):
    return {name: copy.copy(value) for name, value in without_copies(model, optimizer).items()}


def without_momentum(model, optimizer):
    fresh = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return snapshot(model, fresh)


def without_random_numbers(model, optimizer):
    return snapshot(model, optimizer) | {"random": torch.Generator().get_state()}


def without_running_statistics(model, optimizer):
    taken = snapshot(model, optimizer)
    for name, value in taken["model"].items():
        if "running" in name:
            value.fill_(float("var" in name))
    return taken


def parameters_alone(model, optimizer):
    return snapshot(model, optimizer) | {"model": {n: p.detach().clone() for n, p in model.named_parameters()}}


KEEPING = {name for name, (_, same) in CHANGES.items() if same}


def same_weights(changes):
    return not changes.keys() - KEEPING


def waiting(record):
    busy = {lane: np.ptp(spans, axis=1).sum() if len(spans) else 0 for lane, spans in record.items()}
    cpu = np.ptp(record["CPU"], axis=1)
    longest = max(busy, key=busy.get)
    if longest != "CPU":
        return {"card": "nothing", "copy": "copy"}[longest]
    return "batch" if cpu.max() > 2 * np.median(cpu) else "launches"


def by_the_busiest_lane(record):
    busy = {lane: np.ptp(spans, axis=1).sum() for lane, spans in record.items()}
    return {"card": "nothing", "copy": "copy", "CPU": "batch"}[max(busy, key=busy.get)]


RIGHT = {
    "ch10.update_time": update_time,
    "ch10.snapshot": snapshot,
    "ch10.same_weights": same_weights,
    "ch10.waiting": waiting,
}

WRONG = {
    "ch10.update_time": {
        "the launches alone": lambda n, launch, kernel: n * launch,
        "the kernels alone": lambda n, launch, kernel: n * kernel,
        "one after the other": lambda n, launch, kernel: n * (launch + kernel),
        "the slower of the two": lambda n, launch, kernel: n * max(launch, kernel),
        "without the first": lambda n, launch, kernel: n * max(launch, kernel) + kernel,
        "as if the launches were slower": lambda n, launch, kernel: n * launch + kernel,
    },
    "ch10.snapshot": {
        "without copies": without_copies,
        "copied one level deep": copied_one_level_deep,
        "without momentum": without_momentum,
        "without random numbers": without_random_numbers,
        "without running statistics": without_running_statistics,
        "parameters alone": parameters_alone,
        "the model alone": lambda model, optimizer: model.state_dict(),
        "objects": lambda model, optimizer: snapshot(model, optimizer) | {"model": copy.deepcopy(model)},
    },
    "ch10.same_weights": {
        "always": lambda changes: True,
        "never": lambda changes: False,
        "nothing changed": lambda changes: not changes,
        "a word": lambda changes: "yes",
        "the seed does not matter": lambda changes: not changes.keys() - KEEPING - {"seed"},
        "workers shuffle": lambda changes: not changes.keys() - KEEPING | changes.keys() & {"workers"},
        "one is enough": lambda changes: not changes or bool(changes.keys() & KEEPING),
    },
    "ch10.waiting": {
        **{f"always {reason}": lambda record, reason=reason: reason for reason in REASONS},
        "no name": lambda record: "CPU",
        "the busiest lane": by_the_busiest_lane,
    },
}


def test_a_card_waits_for_what_is_slow():
    one = {"fetch": 0, "copy": 0, "launches": 3, "launch": 1, "kernel": 0.5}
    assert timeline(1, **one)["card"] == [(1, 1.5), (2, 2.5), (3, 3.5)]
    assert timeline(1, **one | {"kernel": 2})["card"] == [(1, 3), (3, 5), (5, 7)]
    late = timeline(2, **one | {"fetch": 2, "copy": 4})
    assert late["copy"] == [(2, 6), (7, 11)] and late["card"][0] == (6, 6.5) and late["card"][3] == (11, 11.5)
    assert late["CPU"] == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 7), (7, 8), (8, 9), (9, 10)]


@pytest.mark.long
@pytest.mark.parametrize("name", CHANGES)
def test_the_settings_that_keep_the_weights_are_those_that_do(name):
    """The truth that the checker knows is that of real runs, of the network that the exercise names."""
    small = replace(SMALL, train_images=320, batch_size=64, epochs=1)
    value, same = CHANGES[name]
    assert value != getattr(small, name)
    one, other = (tensors(quiet(replace(small, **changes))) for changes in ({}, {name: value}))
    assert equal(one, other) == same
