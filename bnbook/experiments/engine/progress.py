"""What is shown while runs are made."""

from __future__ import annotations

import sys
import time

from .words import duration


class Bar:
    """A progress bar over runs with the time left; without tqdm, a line a run."""

    def __init__(self, name: str, total: int, wanted: bool) -> None:
        self.total, self.wanted, self.done, self.started = total, wanted, 0, time.monotonic()
        self.bar = None
        if wanted and total:
            try:
                from tqdm import tqdm
            except ModuleNotFoundError:
                return
            self.bar = tqdm(total=total, desc=name, unit="run", smoothing=0)

    def step(self, text: str) -> None:
        """One run is over."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update()
        elif self.wanted:
            left = (time.monotonic() - self.started) / self.done * (self.total - self.done)
            self.say(f"{self.done}/{self.total} {text}; {duration(left)} left")

    def say(self, text: str) -> None:
        """Show text without spoiling the bar."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()
