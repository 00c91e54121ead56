"""Batch normalization as large trainings run it: over many devices, and as one program of a GPU.

Import what you need by name: `from bnbook.kernels import sync_batch_norm`.
"""
