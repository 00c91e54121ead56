"""The convolutional network of the book, once per framework."""
