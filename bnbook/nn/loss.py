"""The loss as a layer."""

from __future__ import annotations

from .. import functional as F
from .module import Array, Module


class CrossEntropyLoss(Module):
    """Cross-entropy of logits with class labels (`functional.cross_entropy`); `backward` starts the backward pass."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')
        self.reduction = reduction

    def forward(self, x: Array, target: Array) -> Array:
        loss, self._cache = F.cross_entropy(x, target, reduction=self.reduction)
        return loss

    def __call__(self, x: Array, target: Array) -> Array:
        return self.forward(x, target)

    def backward(self, grad_y: Array | float = 1.0) -> Array:
        return F.cross_entropy_backward(grad_y, cache=self._saved())
