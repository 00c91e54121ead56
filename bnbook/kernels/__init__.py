"""Batch normalization as large trainings run it: over many devices, and as one program of a GPU.

Nothing is imported here. Each file needs PyTorch, and says what else:
`from bnbook.kernels import sync_batch_norm`, `from bnbook.kernels.batch_norm_triton import batch_norm`.
"""
