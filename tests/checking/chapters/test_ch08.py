"""The checkers of chapter 8 accept the solutions and refuse wrong answers."""

import numpy as np
import pytest

from bnbook import data
from bnbook import functional as F
from bnbook.checking.chapters.ch08 import BUGS, record


def counts(batch_size, size, channels, kernel, hidden):
    outer = size - kernel + 1
    inner = outer // 2
    parameters = channels * (kernel**2 + 1) + 2 * channels
    parameters += hidden * (channels * inner**2 + 1) + 2 * hidden + 10 * (hidden + 1)
    return parameters, batch_size * outer**2, batch_size


def changed_counts(parameters=0.0, first=1.0, second=1.0):
    def answer(batch_size, size, channels, kernel, hidden):
        p, a, b = counts(batch_size, size, channels, kernel, hidden)
        return p + parameters * (channels + hidden), a * first, b * second

    return answer


def with_running_statistics(*case):
    return changed_counts(parameters=2)(*case)


def without_gamma_and_beta(*case):
    return changed_counts(parameters=-2)(*case)


def mean_over_channels_too(batch_size, size, channels, kernel, hidden):
    p, a, b = counts(batch_size, size, channels, kernel, hidden)
    return p, a * channels, b


def per_pixel(batch_size, size, channels, kernel, hidden):
    return counts(batch_size, size, channels, kernel, hidden)[0], batch_size, batch_size


def evaluation(*, eval_mode=True, restore=True, weigh=True, drop_last=False, mean=True):
    def answer(model, images, labels, batch_size):
        training = model.training
        if eval_mode:
            model.eval()
        losses, right, seen, means = 0.0, 0, 0, []
        for x, target in data.batches(images, labels, batch_size, drop_last=drop_last):
            logits = model(x)
            loss = float(F.cross_entropy(logits, target)[0])
            losses, seen = losses + loss * len(target), seen + len(target)
            means.append(loss)
            right += (logits.argmax(axis=1) == target).sum()
        if restore is not None:
            model.train(training if restore else not training)
        return (losses / seen if weigh else np.mean(means)) if mean else losses, right / seen

    return answer


def company(model, image, others):
    kinds = model(data.to_input(others)).argmax(axis=1)
    alone = model(data.to_input(image[None])).argmax()
    model.train()
    for kind in range(10):
        chosen = np.flatnonzero(kinds == kind)[:15]
        batch = np.concatenate([image[None], others[chosen]])
        if len(chosen) == 15 and model(data.to_input(batch)).argmax(axis=1)[0] != alone:
            return chosen
    return np.arange(15)


def diagnose(log):
    if np.all(log["running_mean_norm"] == 0):
        return "evaluation mode"
    if log["lr"][-1] > 0.1 * log["lr"][0]:
        return "schedule per epoch"
    if log["grad_norm"][-10:].mean() > 2 * log["grad_norm"][0]:
        return "no zero_grad"
    return "labels shuffled" if log["loss"][-10:].mean() > 2 else "correct"


def never(bug):
    """Diagnose, but blind to one bug."""

    def answer(log):
        found = diagnose(log)
        return "correct" if found == bug else found

    return answer


RIGHT = {
    "ch08.counts": counts,
    "ch08.evaluate": evaluation(),
    "ch08.company": company,
    "ch08.diagnose": diagnose,
}
WRONG = {
    "ch08.counts": [
        with_running_statistics,
        without_gamma_and_beta,
        mean_over_channels_too,
        per_pixel,
        changed_counts(second=169),
        lambda *case: (692_682, 43_264, 64),  # about the network of the page only
        lambda *case: counts(*case)[0],
        lambda *case: None,
    ],
    "ch08.evaluate": [
        evaluation(eval_mode=False),
        evaluation(restore=False),
        evaluation(restore=None),
        evaluation(weigh=False),
        evaluation(drop_last=True),
        evaluation(mean=False),
        lambda model, images, labels, batch_size: 0.1,
        lambda model, images, labels, batch_size: (2.3, 0.1),
    ],
    "ch08.company": [
        lambda model, image, others: np.arange(15),
        lambda model, image, others: np.zeros(15, int),
        lambda model, image, others: np.arange(16),
        lambda model, image, others: np.arange(15) + len(others),
        lambda model, image, others: others[:15],
        lambda model, image, others: None,
    ],
    "ch08.diagnose": [
        *(never(bug) for bug in BUGS if bug != "correct"),
        *(lambda log, bug=bug: bug for bug in BUGS),
        lambda log: "something else",
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS)
def test_logs_can_be_told_apart_with_a_margin(bug):
    for seed in range(5):
        log = record(bug, np.random.default_rng(seed))
        last = log["loss"][-10:].mean()
        assert last > 2.05 if bug == "labels shuffled" else last < 1.95
        growth = log["grad_norm"][-10:].mean() / log["grad_norm"][0]
        assert bug in ("evaluation mode",) or (growth > 2.5 if bug == "no zero_grad" else growth < 1.5)
