"""Checkers of chapter 20, when the statistics are wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ..exercises import Wrong, checker, same


def _left(momentum: float, steps: int) -> float:
    return (1 - momentum) ** steps


@checker("ch20.leaves")
def leaves(answer, rng) -> None:
    """`answer(shift, factor, momentum, steps)` is (mean, sd) of what leaves a layer with statistics that are off."""
    for case in range(20):
        shift, factor = rng.choice([-1, 1]) * rng.uniform(0.5, 3), rng.uniform(2, 9)
        momentum, steps = rng.uniform(0.05, 0.4), int(rng.integers(1, 12)) if case else 0
        left = _left(momentum, steps)
        delta, phi = left * shift, 1 + left * (factor - 1)
        got = answer(shift, factor, momentum, steps)
        if not isinstance(got, tuple | list | np.ndarray) or len(got) != 2:
            raise Wrong("Return two numbers: the mean and the standard deviation of what leaves the layer.")
        where = f"for δ = {shift:.3g} and φ = {factor:.3g} after {steps} batches with momentum {momentum:.3g}"
        same(
            got[0],
            -delta / np.sqrt(phi),
            f"The mean {where}",
            mistakes={
                "The sign is wrong: what is subtracted was too large.": delta / np.sqrt(phi),
                "It is divided by the wrong standard deviation as well.": -delta,
                "Divide by the root of the factor.": -delta / phi,
                "That is before any repair.": -shift / np.sqrt(factor) if steps else np.nan,
                "The variance is repaired too.": -delta / np.sqrt(factor) if steps else np.nan,
                "A variance that is right has the factor 1, not 0.": -delta / np.sqrt(left * factor)
                if steps
                else np.nan,
                "The momentum is the weight of the new value.": -(momentum**steps)
                * shift
                / np.sqrt(1 + momentum**steps * (factor - 1))
                if steps
                else np.nan,
            },
        )
        same(
            got[1],
            1 / np.sqrt(phi),
            f"The standard deviation {where}",
            mistakes={
                "That is a variance; take its root.": 1 / phi,
                "Evaluation divides by what is too large.": np.sqrt(phi),
                "That is before any repair.": 1 / np.sqrt(factor) if steps else np.nan,
                "A variance that is right has the factor 1, not 0.": 1 / np.sqrt(left * factor) if steps else np.nan,
            },
        )


@checker("ch20.momentum", name="momentum_for")
def momentum(answer, rng) -> None:
    """`answer(momentum, runs)` gives in `runs` updates what `momentum` gives in one."""
    for case in range(20):
        alpha, runs = rng.uniform(0.05, 0.9), int(rng.integers(2, 6)) if case else 1
        same(
            answer(alpha, runs),
            1 - (1 - alpha) ** (1 / runs),
            f"The momentum that in {runs} runs does what {alpha:.3g} does in one",
            mistakes={
                "The parts are not added: the second run takes its share of what the first has left.": alpha / runs
                if runs > 1
                else np.nan,
                "That is what is left, not what is taken.": (1 - alpha) ** (1 / runs),
                "That is what so many runs do with the given momentum.": 1 - (1 - alpha) ** runs
                if runs > 1
                else np.nan,
                "The root is that of what is left, 1 − α.": alpha ** (1 / runs) if runs > 1 else np.nan,
            },
        )


@checker("ch20.stall")
def stall(answer, rng) -> None:
    """`answer(goal, momentum)` is where a running mean in float16, from 0, stands still."""
    for _ in range(12):
        goal, alpha = float(rng.uniform(1, 60)), float(10 ** rng.uniform(-3, -1))
        mean = np.float16(0)
        while (now := np.float16(float(mean) + alpha * (goal - float(mean)))) != mean:
            mean = now
        unit = float(np.spacing(mean))
        same(
            answer(goal, alpha),
            float(mean),
            f"The float16 average that goes to {goal:.5g} with momentum {alpha:.3g} stands still where it",
            hint="Go step by step, and stop when a step changes nothing.",
            mistakes={
                "That is the goal; it never gets there.": goal,
                "That is the goal, rounded; it never gets there.": float(np.float16(goal)),
                "That is the bound of the formula; the average lies on a number of float16.": goal - unit / 2 / alpha,
            },
        )


def layers() -> dict[str, Callable]:
    """Makers of served layers `layer(x)` from the mean and the standard deviation of their data, and an rng."""

    def constants(mean, sd):
        return lambda x: (x - mean) / np.sqrt(sd**2 + 1e-5)

    def healthy(mean, sd, rng):
        return constants(mean + 0.05 * sd * rng.uniform(-1, 1, 3), sd * rng.uniform(0.93, 1.07, 3))

    def stale(mean, sd, rng):
        if rng.random() < 0.5:
            return constants(mean + sd * rng.uniform(1, 3, 3) * rng.choice([-1, 1], 3), sd)
        return constants(mean, sd * rng.choice([0.4, 2.5], 3))

    def poisoned(mean, sd, rng):
        broken = mean.copy()
        broken[rng.integers(3)] = rng.choice([np.nan, np.inf])
        return constants(broken, sd)

    return {
        "healthy": healthy,
        "training mode": lambda mean, sd, rng: lambda x: constants(x.mean(0), x.std(0))(x),
        "never updated": lambda mean, sd, rng: constants(np.zeros(3), np.ones(3)),
        "poisoned": poisoned,
        "stale": stale,
    }


@checker("ch20.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(layer, x)` names what is wrong with a served layer `layer(x)`, by rows of its training data."""
    known = layers()
    for name in rng.permutation(list(known) * 4):
        mean, sd = rng.choice([-1, 1], 3) * rng.uniform(2, 6, 3), rng.uniform(1.5, 4, 3)
        x = rng.normal(mean, sd, (400, 3))
        got = answer(known[str(name)](mean, sd, rng), x)
        if not isinstance(got, str) or got not in known:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, known))}.")
        if got != name:
            raise Wrong(f"A layer that is {str(name)!r} was called {got!r}.")


class _Lost(Exception):
    """What the batches of a trial raise."""


@checker("ch20.recalibrate")
def recalibrate(answer, rng) -> None:
    """`answer(model, batches)` collects running statistics anew, without the traps of `update_bn`."""
    import torch
    from torch import nn

    def model_of(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        image = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, momentum=0.05), nn.ReLU(), nn.Flatten()]
        table = [nn.Dropout(0.5), nn.Linear(12, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)]
        model = nn.Sequential(*image, *table)
        for _ in range(5):
            model(1 + torch.randn(8, 1, 4, 4))
        return model

    def expected(model: nn.Sequential, batches: list, frozen: bool) -> dict:
        """The state after a recalibration, layer by layer: by hand."""
        model = copy.deepcopy(model).eval()
        done = model.state_dict()
        for norm in (1, 6):
            if frozen and norm == 6:
                continue
            total = sum(len(x) for x in batches)
            sums = [0.0, 0.0]
            for x in batches:
                arriving = _in_training(model, x, norm, frozen)
                axes = (0,) if arriving.ndim == 2 else (0, 2, 3)
                var, mean = torch.var_mean(arriving, axes)
                sums = [sums[0] + len(x) / total * mean, sums[1] + len(x) / total * var]
            done[f"{norm}.running_mean"], done[f"{norm}.running_var"] = sums
        return done

    def _in_training(model: nn.Sequential, x, upto: int, frozen: bool):
        with torch.no_grad():
            for i, layer in enumerate(model[:upto]):
                kept = copy.deepcopy(layer)
                if isinstance(kept, nn.BatchNorm1d | nn.BatchNorm2d):
                    kept.train(not (frozen and i == 6))
                x = kept(x)
        return x

    def state_of(model) -> tuple:
        return [m.training for m in model.modules()], [getattr(m, "momentum", None) for m in model.modules()]

    def trial(mode: str, batches: Iterable, error: type[Exception] | None, data: list) -> None:
        model = model_of(int(rng.integers(1000)))
        model.train(mode != "evaluation")
        frozen = mode == "frozen"
        if frozen:
            model[6].eval()
        if mode == "poisoned":
            model[1].running_mean[0], model[6].running_var[1] = torch.nan, torch.inf
        before, (modes, momenta) = copy.deepcopy(model.state_dict()), state_of(model)
        raised = None
        try:
            answer(model, batches)
        except (_Lost, ValueError) as caught:
            raised = caught
        if error is None and raised is not None:
            raise raised
        if error is not None and not isinstance(raised, error):
            what = "without a batch it should raise ValueError" if error is ValueError else "the error of the batches"
            raise Wrong(f"{what[0].upper()}{what[1:]}{'' if error is ValueError else ' should reach the caller'}.")
        now_modes, now_momenta = state_of(model)
        after = " after an error" if error else ""
        if now_modes != modes:
            raise Wrong(f"Some modules are in another mode than before{after}.")
        if now_momenta != momenta:
            raise Wrong(f"The momentum of a layer is not what it was{after}.")
        state = model.state_dict()
        for key, old in before.items():
            if key.endswith(("weight", "bias")) and not torch.equal(state[key], old):
                raise Wrong(f"{key} has changed; only running statistics should.")
        if error is ValueError and not all(torch.equal(state[key], old) for key, old in before.items()):
            raise Wrong("Without a batch nothing should change; the running statistics have.")
        if error:
            return
        if frozen and any(not torch.equal(state[k], old) for k, old in before.items() if k.startswith("6.running")):
            raise Wrong("The frozen layer (in evaluation mode, in a model in training mode) has other statistics now.")
        for key, value in expected(model, data, frozen).items():
            if "running" in key:
                where = {
                    "training": "",
                    "evaluation": " of a model in evaluation mode",
                    "frozen": " beside a frozen",
                    "poisoned": " of a model whose statistics were no numbers",
                }
                if mode == "poisoned" and not state[key].isfinite().all():
                    raise Wrong(f"{key}{where[mode]} is still no number: 0 · NaN is NaN, so reset before you average.")
                same(
                    state[key].numpy(),
                    value.numpy(),
                    f"{key}{where[mode]}",
                    tol=1e-4,
                    hint="Batches count by their examples, dropout sleeps, and nothing is left of the old statistics.",
                )

    def broken(x) -> Iterator:
        yield x
        raise _Lost("the disk is gone")

    def drawn(*sizes: int) -> list:
        return [torch.from_numpy(rng.normal(rng.uniform(1, 3), 2, (n, 1, 4, 4)).astype(np.float32)) for n in sizes]

    for mode in ("training", "evaluation", "frozen", "poisoned"):
        data = drawn(16, 30, 5)
        trial(mode, iter(data), None, data)
    trial("training", iter(()), ValueError, [])
    trial("evaluation", broken(drawn(16)[0]), _Lost, [])
