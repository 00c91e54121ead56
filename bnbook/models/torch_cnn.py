"""The convolutional network of the book in PyTorch."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from ..functional._checks import check_integer, check_one_of

NORMS = {
    "batch": (nn.BatchNorm2d, nn.BatchNorm1d),
    "none": (None, None),
    "layer": (lambda channels: nn.GroupNorm(1, channels), nn.LayerNorm),
    "group": (lambda channels: nn.GroupNorm(8, channels),) * 2,
}
"""What `norm` accepts: the normalization after the convolution and that after the fully connected layer."""

ORDERS = ("before_activation", "after_activation")


def cnn(norm: str = "batch", *, order: str = "before_activation", image_size: int = 28) -> nn.Sequential:
    """conv 1→32 (3×3), norm, ReLU, max-pool 2, flatten, fully connected 128, norm, ReLU, fully connected 10.

    It maps images (N, 1, 28, 28) to logits (N, 10). The layers have the names of the NumPy network, so that with
    "batch" the keys of the two state dicts are the same. The normalization draws no random numbers: after
    `torch.manual_seed(s)` all norms start from the same weights.

    Args:
        norm: "batch"; "none", which leaves both out; "layer", one mean and one variance an example (after the
            convolution as group normalization with one group); or "group", 8 groups.
        order: the normalization "before_activation", or "after_activation", as in a Keras network that has its ReLU
            inside of the convolution.
        image_size: height and width of the images, at least 4; the experiments use 14 as well, at a quarter of the
            cost.

    Raises:
        ValueError: an unknown norm or order, or smaller images. TypeError: image_size is no integer.
    """
    check_one_of("norm", norm, NORMS)
    check_one_of("order", order, ORDERS)
    image_size = check_integer("image_size", image_size, at_least=4)  # which leaves one pixel to the pooling
    after_conv, after_fc = NORMS[norm]
    layers = OrderedDict(
        conv=nn.Conv2d(1, 32, 3),
        bn1=after_conv and after_conv(32),
        relu1=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(32 * ((image_size - 2) // 2) ** 2, 128),
        bn2=after_fc and after_fc(128),
        relu2=nn.ReLU(),
        fc2=nn.Linear(128, 10),
    )
    if order == "after_activation":
        names = "conv relu1 bn1 pool flatten fc1 relu2 bn2 fc2".split()
        layers = OrderedDict((name, layers[name]) for name in names)
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))
