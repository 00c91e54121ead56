"""The book's X-ray: per layer the spread of activations and of gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import nn
from .record import Recorded, record

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure


def spread(values: np.ndarray, center: bool = True) -> tuple[float, float, float]:
    """How far the values of a layer's units reach over the batch: (root mean square over the units, 10 %, 90 %).

    Args:
        values: (N, C) or (N, C, *), axis 1 holds the units: activations or their gradients.
        center: around each unit's own mean (its standard deviation: what tells the examples apart), or around zero.
    """
    units = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what has exploded is a result, not a warning
        size = units.std(axis=1) if center else np.sqrt((units**2).mean(axis=1))
        low, high = np.percentile(size, [10, 90])
        return float(np.sqrt((size**2).mean())), float(low), float(high)


class XRay(NamedTuple):
    """The figure, and what it shows: layer → (activation, gradient), in the order of the forward pass."""

    figure: Figure
    recorded: Recorded

    def __repr__(self) -> str:
        return f"XRay of {len(self.recorded)} layers"


def xray(model: nn.Sequential | torch.nn.Module, batch: Any, **options: Any) -> XRay:
    """Draw the book's X-ray of a model: per layer the spread of activations and gradients for one batch.

    Several models in one figure: ``draw_xray({name: record(model, inputs, targets) for ...})``.

    Args:
        model: a torch model, or a `bnbook.nn.Sequential`. It stays as it is.
        batch: (inputs, targets), or the inputs alone: then activations only.
        options: those of `record`: `loss`, `layers`, `training`.

    Raises:
        ValueError, TypeError: as `record`; more than two values; no layer that returns (N, C) or (N, C, *).
    """
    if not isinstance(batch, tuple | list):
        batch = (batch,)
    if len(batch) not in (1, 2):
        raise ValueError(f"batch must be (inputs, targets) or the inputs alone, got {len(batch)} values")
    recorded = record(model, *batch, **options)
    units = {name: values for name, values in recorded.items() if values[0].ndim >= 2}
    if not units:
        raise ValueError(f"none of the layers {list(recorded)} returns (N, C) or (N, C, *): there is nothing to draw")
    return XRay(draw_xray({"": units}), recorded)


XRAY_LIMITS = (1e-8, 1e4)
SIZES = ("standard deviation", "root mean square")  # of activations around their means, of gradients around zero


def draw_xray(
    networks: Mapping[str, Recorded | tuple[Sequence[np.ndarray], Sequence[np.ndarray]]],
    colors: Sequence[str] | None = None,
) -> Figure:
    """The X-ray: per layer the spread of activations and of gradients, on fixed logarithmic axes.

    A line is the typical size of a unit's activations (their standard deviation over the batch) and of its gradients
    (their root mean square); the band spans the units from the 10th to the 90th percentile. A level line means a
    network that neither fades nor blows up; what leaves the axes below has vanished. A layer without a gradient (None)
    is a gap.

    Args:
        networks: name → what `record` returns, or (activations, gradients), each a list with one array (N, C, *)
            per layer, first layer first. One network needs no name: "".
        colors: one per network.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(5.6, 3.2), sharex=True, sharey=True, layout="constrained")
    names: list[str] = []
    for k, (name, recorded) in enumerate(networks.items()):
        color = colors[k] if colors else f"C{k}"
        if isinstance(recorded, Mapping):
            names, recorded = list(recorded), zip(*recorded.values(), strict=True)
        for ax, arrays in zip(axes, recorded, strict=True):
            sizes = [(np.nan,) * 3 if a is None else spread(a, center=ax is axes[0]) for a in arrays]
            # zero and infinity have no place on the axis: they leave it below and above
            middle, low, high = np.clip(np.array(sizes).T, XRAY_LIMITS[0] / 10, 1e100)
            layers, marker = np.arange(1, len(sizes) + 1), "o" if len(sizes) <= 10 else None
            ax.plot(layers, middle, color=color, label=name, marker=marker, markersize=4)
            ax.fill_between(layers, low, high, color=color, alpha=0.2, lw=0)
    for ax, title, size in zip(axes, ("activations", "gradients"), SIZES, strict=True):
        ax.set(title=title, xlabel="layer", ylabel=size, yscale="log", ylim=XRAY_LIMITS)
        if len(networks) == 1 and 0 < len(names) <= 12 and max(map(len, names)) <= 16:  # what fits under the axes
            ax.set_xticks(range(1, len(names) + 1), names, rotation=90)
        else:
            ax.xaxis.get_major_locator().set_params(integer=True)
        if all(np.isnan(line.get_ydata()).all() for line in ax.lines):
            ax.text(0.5, 0.5, "nothing to draw", transform=ax.transAxes, ha="center")
    if any(networks):
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(len(networks), 3))
    return figure
