"""What checks the book: numeric gradients, comparison tables, planted mistakes, and the exercises' checkers."""

from .exercises import check

__all__ = ["check"]
