"""What is shown while training: a bar where there is tqdm and a terminal, else a line per evaluation."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from .settings import Settings

try:
    from tqdm import tqdm
except ModuleNotFoundError:  # a machine with PyTorch need not have it
    tqdm = None

SECONDS = 0.5  # between two looks at the sums, which on a GPU have to be waited for


class Progress:
    """The progress of one run; `wanted` False shows nothing."""

    def __init__(self, settings: Settings, wanted: bool) -> None:
        self.settings = settings
        self.bars = wanted and tqdm is not None and sys.stderr.isatty()
        self.lines = wanted and not self.bars
        self.bar, self.next = None, 0.0

    def begin(self, epoch: int, images: int, seen: int) -> None:
        """An epoch of so many images begins, or goes on after those that were seen."""
        if self.bars:
            title = f"epoch {epoch + 1}/{self.settings.epochs}"
            self.bar = tqdm(total=images, initial=seen, desc=title, unit="image", unit_scale=True, mininterval=SECONDS)

    def advance(self, images: int, running: Callable[[], tuple[float, float]]) -> None:
        """An update was made; `running` reads its loss and accuracy so far."""
        if self.bar is None:
            return
        if (now := time.monotonic()) >= self.next:
            self.next = now + SECONDS
            self.bar.set_postfix_str("loss {:.3f}, accuracy {:.3f}".format(*running()), refresh=False)
        self.bar.update(images)

    def scored(self, row: dict, images_per_second: float) -> None:
        """A row was added to the history."""
        split = self.settings.evaluate
        text = "loss {train_loss:.3f}, accuracy {train_accuracy:.3f}".format(**row)
        text += f", {split} loss {row['loss']:.3f}, {split} accuracy {row['accuracy']:.4f}"
        if self.bar is not None:
            self.bar.set_postfix_str(text)
        elif self.lines:
            print(
                f"epoch {row['epoch']:g}/{self.settings.epochs}: {text}, {images_per_second:,.0f} images/s", flush=True
            )

    def end(self) -> None:
        """The epoch ends, or the run."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
