"""Batch normalization for more, or faster, devices; each file needs PyTorch, and says what else.

Nothing is imported here: `from bnbook.kernels.batch_norm_triton import batch_norm`.
"""
