"""Train the book's networks in PyTorch, on any device: in a notebook, by a command, over several processes.

result = train(Settings(norm="none", epochs=2))      here
python -m bnbook.train --norm none --epochs 2        from the shell; --help explains
torchrun --nproc_per_node 2 -m bnbook.train          over two processes
"""

from .checkpoint import CheckpointError
from .loop import Result, train
from .report import describe
from .settings import MODELS, Settings
from .update import evaluate

__all__ = ["MODELS", "CheckpointError", "Result", "Settings", "describe", "evaluate", "train"]
