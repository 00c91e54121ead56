"""The networks of the book, a file each; whoever imports one needs its framework.

- `numpy_cnn`, `torch_cnn`, `keras_cnn`: the convolutional network of the book, once per framework;
- `torch_mlp`: fully connected networks, plain and residual;
- `torch_conv`: VGG and residual networks for images;
- `torch_statistics`: batch normalization with other statistics than those of the batch.
"""
