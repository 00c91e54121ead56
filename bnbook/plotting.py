"""The book's figure style and its recurring figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .probes import Recorded, spread

# Okabe & Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6b6b6b",
)  # fmt: skip
WITH_BN, WITHOUT_BN = BLUE, ORANGE  # everywhere in the book


def use_style() -> None:
    """Set the style of the book: 6 inches at 100 dpi, so that letters stay readable on a phone."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.figsize": (6, 3.2),
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e5e5e5",
            "axes.axisbelow": True,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, GREY]),
            "legend.frameon": False,
            "lines.linewidth": 2,
            "image.cmap": "gray",
        }
    )


XRAY_LIMITS = (1e-8, 1e4)


def xray(
    networks: Mapping[str, Recorded | tuple[Sequence[np.ndarray], Sequence[np.ndarray]]],
    colors: Sequence[str] | None = None,
) -> Figure:
    """The X-ray: per layer the spread of activations and of gradients, on fixed logarithmic axes.

    A line is the typical size of a unit's activations (their standard deviation over the batch) and of its gradients
    (their root mean square); the band spans the units from the 10th to the 90th percentile. A level line means a
    network that neither fades nor blows up; what leaves the axes below has vanished. A layer without a gradient (None)
    is a gap.

    Args:
        networks: name → what `probes.record` returns, or (activations, gradients), each a list with one array (N, C, *)
            per layer, first layer first. One network needs no name: "".
        colors: one per network.
    """
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
    for ax, title in zip(axes, ("activations", "gradients"), strict=True):
        ax.set(title=title, xlabel="layer", yscale="log", ylim=XRAY_LIMITS)
        if len(networks) == 1 and 0 < len(names) <= 12 and max(map(len, names)) <= 16:  # what fits under the axes
            ax.set_xticks(range(1, len(names) + 1), names, rotation=90)
        else:
            ax.xaxis.get_major_locator().set_params(integer=True)
        if all(np.isnan(line.get_ydata()).all() for line in ax.lines):
            ax.text(0.5, 0.5, "nothing to draw", transform=ax.transAxes, ha="center")
    axes[0].set_ylabel("size over the batch")
    if any(networks):
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(len(networks), 3))
    return figure


def shared_statistics(ax: Axes, groups: np.ndarray, title: str) -> None:
    """Draw which values share one mean and one variance: equal colours are averaged together.

    Args:
        ax: where to draw.
        groups: integer labels, (N, C) for a table of features or (N, C, H, W) for images.
        title: over the picture.
    """
    palette = [BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, GREY]
    table = groups.reshape(*groups.shape, 1, 1) if groups.ndim == 2 else groups
    n, channels, height, width = table.shape
    for i, c, h, w in np.ndindex(table.shape):
        ax.add_patch(
            plt.Rectangle(
                (c * (width + 0.7) + w, -i * (height + 0.7) - h),
                0.92,
                0.92,
                facecolor=palette[int(table[i, c, h, w]) % len(palette)],
            )
        )
    ax.set(
        title=title,
        xlim=(-0.4, channels * (width + 0.7)),
        ylim=(-(n * (height + 0.7)) + 1, 1.4),
        aspect="equal",
        xticks=[c * (width + 0.7) + width / 2 for c in range(channels)],
        yticks=[0.5 - i * (height + 0.7) - (height - 1) / 2 for i in range(n)],
    )
    ax.set_xticklabels([f"$c={c}$" for c in range(channels)])
    ax.set_yticklabels([f"$n={i}$" for i in range(n)])
    ax.tick_params(length=0)
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
