"""What a card waits for: the updates of every rung of the ladder, followed by PyTorch's profiler.

A row holds the seconds of an update without the profiler, which slows the launching CPU but not the work of the card;
and with it, what the card did in an update, kernel by kernel, and the spans of a few updates in a row for a drawing.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ...train import report
from ...train.loop import Run
from ...train.processes import Processes
from ...train.progress import Progress
from ...train.settings import Settings
from . import ladder

QUESTION = "What does a card wait for on every rung of the ladder?"
CHAPTER, VERSION, SEEDS = 10, report.VERSION, 1
DATASET, NETWORK = ladder.DATASET, ladder.NETWORK
METRIC = "seconds_per_update"
CHANCE = None  # a time has no worst value

TIMED, FOLLOWED, DRAWN = 300, 20, 3  # updates
CARD = {"kernel": "card", "gpu_memset": "card", "gpu_memcpy": "copy"}  # category of the profiler: lane
BATCH, UPDATE = "bnbook: batch", "bnbook: update"


def grid(quick: bool = False) -> list[dict]:
    """Every rung; quick: the first two."""
    return [
        {"rung": rung, "norm": norm} for rung in list(ladder.RUNGS)[: 2 if quick else None] for norm in ladder.NORMS
    ]


def run(setting: dict, seed: int) -> dict:
    """Follow the updates of one rung, on a CUDA card."""
    if not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device here; the profiler follows kernels of a card")
    size = {"device": "cuda", "epochs": ladder.EPOCHS, "images": ladder.IMAGES}
    settings = ladder.settings(setting | size, seed).resolved()
    return {"settings": asdict(settings), **follow(settings), "device": report.device("cuda")}


def follow(settings: Settings) -> dict:
    """Updates of a run as on the ladder: timed, and then followed by the profiler.

    Returns:
        seconds_per_update: of `TIMED` updates, without the profiler; and what `read` returns.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    run = Run(settings.resolved(), Processes(settings.device), Progress(settings, False))
    batches = itertools.chain.from_iterable(map(run.loader.epoch, itertools.count()))
    run.update.prepare(next(batches))
    run.model.train()

    def updates(count: int) -> None:
        for _ in range(count):
            with record_function(BATCH):
                batch = next(batches)
            with record_function(UPDATE):
                run.update(batch, settings.lr)
        run.synchronize()

    updates(TIMED // 3)
    started = time.perf_counter()
    updates(TIMED)
    seconds = (time.perf_counter() - started) / TIMED
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as followed:
        updates(5)  # the first ones under the profiler are slower
        updates(FOLLOWED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        followed.export_chrome_trace(str(path))
        events = json.loads(path.read_bytes())["traceEvents"]
    return {"seconds_per_update": seconds, **read(events)}


def read(events: Iterable[Mapping], followed: int = FOLLOWED, drawn: int = DRAWN) -> dict:
    """What the last updates of a Chrome trace were: seconds an update on each lane, kernels, and spans.

    Returns:
        busy: lane → seconds an update in which something was done there; overlapping spans count once.
        launches: launches of the CPU in an update.
        kernels: name → [how many in an update, seconds of an update in all of them].
        spans: lane → [[begin, end], …] in seconds since the first of the last `drawn` updates began; on the CPU a
            fetching of a batch is one span, and a launch one.
    """
    complete = sorted((e for e in events if e.get("ph") == "X"), key=lambda e: e["ts"])
    begins = [e["ts"] for e in complete if e["name"] == BATCH and e.get("cat") == "user_annotation"][-followed:]
    if len(begins) < followed:
        raise ValueError(f"events must hold {followed} updates, got {len(begins)}")
    lanes: dict[str, list[Mapping]] = {"CPU": [], "copy": [], "card": []}
    launches = 0
    for event in complete:
        if event["ts"] < begins[0]:
            continue
        category = event.get("cat", "")
        launching = category in ("cuda_runtime", "cuda_driver") and "Launch" in event["name"]
        launches += launching
        copying = category == "cuda_runtime" and event["name"].startswith("cudaMemcpy")
        if launching or copying or (category == "user_annotation" and event["name"] == BATCH):
            lanes["CPU"].append(event)
        elif category in CARD:
            lanes[CARD[category]].append(event)
    count, seconds = Counter(), Counter()
    for event in lanes["card"] + lanes["copy"]:
        count[event["name"]] += 1
        seconds[event["name"]] += event["dur"] * 1e-6
    start = begins[-drawn]
    return {
        "busy": {lane: _covered(spans) * 1e-6 / followed for lane, spans in lanes.items()},
        "launches": launches / followed,
        "kernels": {
            name[:160]: [count[name] / followed, seconds[name] / followed] for name, _ in seconds.most_common()
        },
        "spans": {
            lane: [
                [round((e["ts"] - start) * 1e-6, 8), round((e["ts"] + e["dur"] - start) * 1e-6, 8)]
                for e in spans
                if e["ts"] >= start
            ]
            for lane, spans in lanes.items()
        },
    }


def _covered(events: Sequence[Mapping]) -> float:
    """The time that at least one of the events takes; they are sorted by their beginning."""
    total, end = 0.0, float("-inf")
    for event in events:
        stop = event["ts"] + event["dur"]
        total += max(0.0, stop - max(end, event["ts"]))
        end = max(end, stop)
    return total
