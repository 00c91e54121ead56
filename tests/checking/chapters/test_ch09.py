"""The checkers of chapter 9 accept the solutions and reject what only looks like one."""

from __future__ import annotations

import numpy as np
import torch

from bnbook.checking.chapters.ch09 import FAULTS


def running_gap(var, m, momentum, steps):
    return var / (m - 1) * (1 - (1 - momentum) ** steps)


def fc_weight(kernel, shape, axes=(3, 2, 0, 1)):
    return kernel.reshape(*shape, -1).transpose(axes).reshape(kernel.shape[::-1])


def worst_std(a, b):
    stds = np.geomspace(1e-6, 10, 20_001)
    gap = np.abs(stds / np.sqrt(stds**2 + a) - stds / np.sqrt(stds**2 + b))
    return stds[gap.argmax()]


def diagnose(source, port):
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (8, 2, 3, 4))

    def agree(x, training):
        return np.allclose(source(x, training), port(x, training), rtol=0, atol=1e-9)

    evaluation, training = agree(x, False), agree(x, True)
    if evaluation and not training:
        return "frozen"
    if training and not evaluation:
        return "statistics swapped"
    if evaluation:  # until a batch has been averaged
        return "correct" if agree(x, False) else "momentum"
    return "eps" if np.allclose(source(1e4 * x, True), port(1e4 * x, True), atol=1e-5) else "flatten order"


def is_norm(layer):
    return isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)


def freeze(model):
    for layer in filter(is_norm, model.modules()):
        layer.eval().requires_grad_(False)
        layer.train = lambda mode=True, layer=layer: layer


def without_grad(model):
    for layer in filter(is_norm, model.modules()):
        layer.requires_grad_(False)


def in_evaluation(model):
    without_grad(model)
    for layer in filter(is_norm, model.modules()):
        layer.eval()


def all_frozen(model):
    freeze(model.requires_grad_(False))


def no_momentum(model):
    without_grad(model)
    for layer in filter(is_norm, model.modules()):
        layer.momentum = 0.0


def never_trains(model):
    freeze(model)
    model.eval().train = lambda mode=True: model


def still_learns(model):
    freeze(model)
    for layer in filter(is_norm, model.modules()):
        layer.requires_grad_(True)


def the_first_alone(model):
    freeze(model[1:2])


RIGHT = {
    "ch09.running_gap": running_gap,
    "ch09.fc_weight": fc_weight,
    "ch09.worst_std": [
        worst_std,
        lambda a, b: np.sqrt((a * b) ** (2 / 3) / (a ** (1 / 3) + b ** (1 / 3))),
    ],
    "ch09.diagnose": diagnose,
    "ch09.freeze": [freeze, lambda model: freeze(model) or model],
}

WRONG = {
    "ch09.running_gap": {
        "divided by m": lambda var, m, momentum, steps: running_gap(var, m + 1, momentum, steps),
        "in the long run": lambda var, m, momentum, steps: var / (m - 1),
        "one step": lambda var, m, momentum, steps: momentum * var / (m - 1),
        "momentum reversed": lambda var, m, momentum, steps: running_gap(var, m, 1 - momentum, steps),
        "one step too many": lambda var, m, momentum, steps: running_gap(var, m, momentum, steps + 1),
        "the other way round": lambda *a: -running_gap(*a),
    },
    "ch09.fc_weight": {
        "transposed": lambda kernel, shape: kernel.T,
        "reshaped": lambda kernel, shape: kernel.reshape(kernel.shape[::-1]),
        "not transposed": lambda kernel, shape: fc_weight(kernel, shape).T,
        "width before height": lambda kernel, shape: fc_weight(kernel, shape, (3, 2, 1, 0)),
        "channels last": lambda kernel, shape: fc_weight(kernel, shape, (3, 0, 1, 2)),
        "shape taken for (C, H, W)": lambda kernel, shape: fc_weight(kernel, shape[-1:] + shape[:-1], (3, 0, 1, 2)),
        "backwards": lambda kernel, shape: fc_weight(kernel, shape)[:, ::-1],
    },
    "ch09.worst_std": {
        "where the larger eps is the variance": lambda a, b: max(a, b) ** 0.5,
        "where the smaller eps is the variance": lambda a, b: min(a, b) ** 0.5,
        "in the middle": lambda a, b: (a * b) ** 0.25,
        "the variance": lambda a, b: worst_std(a, b) ** 2,
        "the defaults alone": lambda a, b: worst_std(1e-5, 1e-3),
        "negative": lambda a, b: -worst_std(a, b),
        "zero": lambda a, b: 0,
    },
    "ch09.diagnose": {
        **{f"always {fault}": lambda source, port, fault=fault: fault for fault in FAULTS},
        "no name": lambda source, port: "broken",
        "one look": lambda source, port: "correct" if np.array_equal(source(IMAGES), port(IMAGES)) else "eps",
    },
    "ch09.freeze": {
        "nothing": lambda model: None,
        "without gradients": without_grad,
        "in evaluation mode for now": in_evaluation,
        "everything": all_frozen,
        "momentum zero": no_momentum,
        "the mode of the whole": never_trains,
        "gamma and beta still learn": still_learns,
        "the first alone": the_first_alone,
        "another model": lambda model: torch.nn.Identity(),
    },
}

IMAGES = np.random.default_rng(0).normal(size=(5, 2, 3, 4))
