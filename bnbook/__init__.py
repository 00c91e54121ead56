"""The helper package of the book: batch normalization from scratch in NumPy, and what checks it."""

__version__ = "0.1.0"
