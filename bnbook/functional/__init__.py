"""Pure functions on NumPy arrays, each with its backward, in the names and conventions of `torch.nn.functional`.

Every `name(...)` returns `(y, cache)`; `name_backward(grad_y, cache)` returns the gradient of the input, followed by
those of the parameters in argument order (None where a parameter was None); of a loss grad_y
defaults to 1. grad_y has the shape and the dtype of y, and a backward function takes the caches of its own function
alone. Inputs are never modified, except running statistics in training. Large arrays are normalized in as many
threads as `OMP_NUM_THREADS` says when this is imported, else in one a processor; the numbers are the same bit by bit.
"""

from .activation import relu, relu_backward, sigmoid, sigmoid_backward, softmax, softmax_backward, tanh, tanh_backward
from .batch_norm import batch_norm, batch_norm_backward
from .convolution import conv2d, conv2d_backward
from .linear import linear, linear_backward
from .loss import cross_entropy, cross_entropy_backward
from .pooling import max_pool2d, max_pool2d_backward
from .relatives import (
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "conv2d",
    "conv2d_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "relu",
    "relu_backward",
    "rms_norm",
    "rms_norm_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
]
