"""What the backward pass of a normalization needs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class NormCache(NamedTuple):
    r"""What the backward pass of a normalization needs, in the symbols of the derivation.

    `xc` is $x-\mu$ (for `rms_norm` $x$ itself), in the shape in which `axes` are the averaged ones; `inv_std` is
    $1/\sqrt{\sigma^2+\varepsilon}$ and `weight` is $\gamma$, both shaped to broadcast against `xc`.
    `half`: the output was rounded to float16. Every function has a kind of its own, which its backward alone accepts.
    """

    xc: Array
    inv_std: Array
    weight: Array | None
    has_bias: bool
    axes: tuple[int, ...]
    training: bool = True
    centered: bool = True
    shape: tuple[int, ...] = ()
    half: bool = False

    @property
    def x_hat(self) -> Array:
        r"""$\hat x = (x-\mu)/\sqrt{\sigma^2+\varepsilon}$, in the shape of x."""
        return (self.xc * self.inv_std.astype(self.xc.dtype)).reshape(self.shape)


class BatchNormCache(NormCache):
    """Of `batch_norm`."""


class LayerNormCache(NormCache):
    """Of `layer_norm`."""


class GroupNormCache(NormCache):
    """Of `group_norm`."""


class InstanceNormCache(NormCache):
    """Of `instance_norm`."""


class RMSNormCache(NormCache):
    """Of `rms_norm`."""
