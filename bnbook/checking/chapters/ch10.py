"""Checkers of chapter 10, training in full; and the model of a card that its timelines are drawn from."""

from __future__ import annotations

import copy
import io

import numpy as np

from ..exercises import Wrong, checker, same

Spans = list[tuple[float, float]]


def timeline(
    updates: int, *, fetch: float, copy: float, launches: int, launch: float, kernel: float
) -> dict[str, Spans]:
    """When the CPU, the copy engine and the card are busy, as spans (begin, end); any unit of time.

    An update takes a batch (`fetch`, on the CPU), sends it (`copy`) and issues `launches` operations, each `launch`
    long on the CPU and `kernel` long on the card. The CPU waits for nobody; the card does one operation after the
    other, each after its launch, and those of an update after its copy. A recorded update is one launch of one long
    kernel.
    """
    busy: dict[str, Spans] = {"CPU": [], "copy": [], "card": []}
    cpu = sent = card = 0.0
    for _ in range(updates):
        if fetch:
            busy["CPU"].append((cpu, cpu + fetch))
            cpu += fetch
        if copy:
            begin = max(cpu, sent)
            sent = begin + copy
            busy["copy"].append((begin, sent))
        for _ in range(launches):
            busy["CPU"].append((cpu, cpu + launch))
            cpu += launch
            begin = max(cpu, sent, card)
            card = begin + kernel
            busy["card"].append((begin, card))
    return busy


@checker("ch10.update_time")
def update_time(answer, rng) -> None:
    """`answer(n, launch, kernel)` is when the last of n operations is finished, launched one by one from time 0 on."""
    for n in (1, *(int(k) for k in rng.integers(2, 200, 6))):
        launch, kernel = 10 ** rng.uniform(-6, -4, 2)
        for a, k in ((launch, kernel), (kernel, launch)):
            busy = timeline(1, fetch=0, copy=0, launches=n, launch=a, kernel=k)
            same(
                np.ravel(answer(n, a, k)),
                np.array([busy["card"][-1][1]]),
                f"The time for {n} operations, launch {a:.2g} s, kernel {k:.2g} s",
                hint="Who is waited for between two operations, the slower or the faster of the two?",
                mistakes={
                    "CPU and card work at the same time.": [n * (a + k)],
                    "At the ends one of them works alone.": [n * max(a, k)],
                    "That is right where the card is the slower one.": [a + n * k],
                    "That is right where the CPU is the slower one.": [n * a + k],
                    "The first launch and the last operation, and what is between: count again.": [
                        a + n * max(a, k) + k
                    ],
                },
            )


def _network():
    from torch import nn

    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))


def _go_on(model, optimizer, batches) -> None:
    from torch.nn.functional import cross_entropy

    for x, y in batches:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


@checker("ch10.snapshot")
def snapshot(answer, rng) -> None:
    """`answer(model, optimizer)` is a dict "model", "optimizer", "random" from which training goes on bit for bit."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        batches = [(torch.randn(8, 6), torch.randint(3, (8,))) for _ in range(8)]
        model = _network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        _go_on(model, optimizer, batches[:4])
        taken, drawn = answer(model, optimizer), torch.get_rng_state()
        if not isinstance(taken, dict) or set(taken) != {"model", "optimizer", "random"}:
            raise Wrong('Return a dictionary with the keys "model", "optimizer" and "random".')
        before = copy.deepcopy(taken)
        _go_on(model, optimizer, batches[4:])
        after = copy.deepcopy(taken)

        file = io.BytesIO()
        torch.save(taken, file)  # later: as a checkpoint that is kept in memory would be written
        file.seek(0)
        try:
            taken = torch.load(file, weights_only=True)
        except Exception:
            raise Wrong("The dictionary should hold tensors, numbers and words alone: take state dicts.") from None
        other = _network()
        other_optimizer = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9)
        try:
            other.load_state_dict(taken["model"])
            other_optimizer.load_state_dict(taken["optimizer"])
            torch.set_rng_state(taken["random"])
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise Wrong(f"A new network cannot be put into this state ({type(error).__name__}: {first}).") from None
        _go_on(other, other_optimizer, batches[4:])
        for name, value in model.state_dict().items():
            if not torch.equal(value, other.state_dict()[name]):
                raise Wrong(
                    f"After four more updates {name} differs from that of the training that was never interrupted. "
                    + _what_is_lost(before, after, drawn)
                )


def _what_is_lost(before: dict, after: dict, drawn) -> str:
    """Why training from a snapshot goes another way: what it was, and what it was after training went on."""
    import torch

    moved = [name for name, value in before["model"].items() if not torch.equal(value, after["model"][name])]
    if moved:
        return f"The snapshot has changed since it was taken, in {moved[0]}: training goes on in the same arrays."
    if str(before["optimizer"]) != str(after["optimizer"]):
        return "The snapshot has changed since it was taken, in the optimizer: training goes on in the same arrays."
    if not before["optimizer"].get("state"):
        return "The optimizer has a memory as well."
    if not torch.equal(before["random"], drawn):
        return "PyTorch's random numbers do not go on where they were: dropout draws from them."
    return "Is something missing in the snapshot?"


# What changes the weights that a run ends with, and what only the time it takes or what is written down.
CHANGES = {
    "loader": ("dataloader", True),
    "workers": (2, True),
    "evaluations": (3, True),
    "evaluate": ("test", True),
    "seed": (1, False),
    "lr": (0.05, False),
    "batch_size": (32, False),
    "schedule": ("constant", False),
    "momentum": (0.8, False),
    "weight_decay": (1e-3, False),
    "norm": ("none", False),
    "epochs": (2, False),
}
"""Setting: (another value than that of the exercise, whether the weights at the end are the same)."""


@checker("ch10.same_weights")
def same_weights(answer, rng) -> None:
    """`answer(changes)` says whether a run with these settings changed ends with the same weights, bit for bit."""
    names = [str(name) for name in rng.permutation(list(CHANGES))]
    keeping = [name for name in names if CHANGES[name][1]]
    cases = [[name] for name in names] + [keeping[:2], keeping[2:], [keeping[0], "seed"], []]
    for case in cases:
        changes = {name: CHANGES[name][0] for name in case}
        expected = all(CHANGES[name][1] for name in case)
        got = answer(dict(changes))
        if not isinstance(got, bool | np.bool_):
            raise Wrong(f"Return True or False, got {got!r}.")
        if got != expected:
            words = "the same weights" if expected else "other weights"
            raise Wrong(f"With {changes or 'nothing changed'} the run ends with {words}.")


REASONS = ("batch", "copy", "launches", "nothing")


def record(reason: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The spans (K, 2) of "CPU", "copy" and "card" over 40 updates, where the card waits mostly for `reason`.

    The clock runs in seconds and starts anywhere. "copy" has no rows where the data is on the card.
    """
    launches = int(rng.integers(6, 20))
    small = 10 ** rng.uniform(-6, -5)
    large = launches * small * rng.uniform(4, 10)
    fetched = bool(reason in REASONS[:2] or rng.integers(2))
    busy = timeline(
        40,
        fetch=large if reason == "batch" else small * fetched,
        copy=large if reason == "copy" else small * fetched,
        launches=launches,
        launch=small * (rng.uniform(4, 8) if reason == "launches" else 1),
        kernel=small * (rng.uniform(4, 8) if reason == "nothing" else 0.7),
    )
    clock = rng.uniform(0, 100)
    return {lane: clock + np.array(spans).reshape(-1, 2) for lane, spans in busy.items()}


@checker("ch10.waiting")
def waiting(answer, rng) -> None:
    """`answer(record)` names what the card waits for."""
    for reason in rng.permutation(list(REASONS) * 3):
        got = answer(copy.deepcopy(record(str(reason), rng)))
        if got not in REASONS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, REASONS))}.")
        if got != reason:
            raise Wrong(f"Where the card waits for {str(reason)!r}, your answer was {got!r}.")
