"""Optimizers, in the names and conventions of `torch.optim`: they update the parameters of a module in place."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .functional._checks import check_number
from .nn.module import Parameter


class Optimizer:
    """The parameters and their step size `lr`, which may be set between steps (a schedule is an assignment)."""

    def __init__(self, params: Iterable[Parameter], lr: float, weight_decay: float) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError("params is empty: nothing to optimize")
        wrong = [type(p).__name__ for p in self.params if not isinstance(p, Parameter)]
        if wrong:
            raise TypeError(f"params must be Parameters, got {wrong[0]}")
        self.params = list(dict.fromkeys(self.params))  # tied ones, given twice, take one step
        check_number("lr", lr, at_least=0)
        check_number("weight_decay", weight_decay, at_least=0)
        self.lr, self.weight_decay = lr, weight_decay
        self.state: list[dict] = [{} for _ in self.params]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.params:
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for parameter, state in zip(self.params, self.state, strict=True):
            if parameter.grad is None:
                continue
            grad = parameter.grad
            if self.weight_decay:
                grad = grad + self.weight_decay * parameter.data
            self._update(parameter.data, grad, state)

    def _update(self, data: np.ndarray, grad: np.ndarray, state: dict) -> None:
        raise NotImplementedError


class SGD(Optimizer):
    r"""Stochastic gradient descent with momentum.

    $$ v \leftarrow \alpha v + g + \lambda\theta,\qquad \theta \leftarrow \theta - \eta v $$

    Args:
        params: what `module.parameters()` gives.
        lr: η.
        momentum: α; 0 is plain gradient descent.
        weight_decay: λ, added to the gradient.

    Source: `torch.optim.SGD` (the velocity is not scaled by 1 − α and starts as the first gradient).
    """

    def __init__(
        self, params: Iterable[Parameter], lr: float = 1e-3, momentum: float = 0.0, *, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, weight_decay)
        check_number("momentum", momentum, at_least=0)
        self.momentum = momentum

    def _update(self, data: np.ndarray, grad: np.ndarray, state: dict) -> None:
        if self.momentum:
            if "velocity" in state:
                state["velocity"] *= self.momentum
                state["velocity"] += grad
            else:
                state["velocity"] = grad.copy()
            grad = state["velocity"]
        data -= self.lr * grad


class Adam(Optimizer):
    r"""Adam: steps of about η in every coordinate, from running averages of the gradient and of its square.

    $$ u \leftarrow \beta_1 u + (1-\beta_1) g,\quad v \leftarrow \beta_2 v + (1-\beta_2) g^2,\quad
       \theta \leftarrow \theta - \eta\,\frac{u/(1-\beta_1^t)}{\sqrt{v/(1-\beta_2^t)}+\epsilon} $$

    Args:
        params: what `module.parameters()` gives.
        lr: η.
        betas: β₁ and β₂, in [0, 1).
        eps: ε, added outside the root.
        weight_decay: λ, added to the gradient as λθ.

    Source: Kingma & Ba (2015), algorithm 1; `torch.optim.Adam`.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        if len(betas) != 2:
            raise ValueError(f"betas must be a pair (β₁, β₂), got {betas}")
        for beta in betas:
            check_number("betas", beta, at_least=0)
            if beta >= 1:
                raise ValueError(f"betas must be less than 1, got {betas}")
        check_number("eps", eps, at_least=0)
        self.betas, self.eps = betas, eps

    def _update(self, data: np.ndarray, grad: np.ndarray, state: dict) -> None:
        if not state:
            state.update(t=0, first=np.zeros_like(data), second=np.zeros_like(data))
        state["t"] += 1
        (beta1, beta2), t = self.betas, state["t"]
        state["first"] *= beta1
        state["first"] += (1 - beta1) * grad
        state["second"] *= beta2
        state["second"] += (1 - beta2) * grad * grad
        root = np.sqrt(state["second"] / (1 - beta2**t))
        root += self.eps
        data -= (self.lr / (1 - beta1**t)) * state["first"] / root


def cosine(step: int, steps: int, lr: float) -> float:
    r"""The cosine schedule: $\tfrac{\eta}{2}(1+\cos(\pi t/T))$, from η at step t = 0 to 0 after the last (t = T).

    Source: Loshchilov & Hutter (2017), equation 5, without restarts.

    Raises:
        TypeError, ValueError: `steps` is not above 0, or `step` not from 0 to `steps`.
    """
    check_number("steps", steps, above=0)
    check_number("step", step, at_least=0)
    if step > steps:
        raise ValueError(f"step must be at most steps, {steps}, got {step}")
    return lr * 0.5 * (1 + math.cos(math.pi * step / steps))
