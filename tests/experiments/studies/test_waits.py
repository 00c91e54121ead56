"""`bnbook.experiments.studies.waits`: what is read from a profiler's trace, and the recorded rows."""

from dataclasses import replace

import pytest

from bnbook import experiments
from bnbook.experiments.studies import ladder, waits
from bnbook.train import Settings

RECORDED = experiments.load("waits")


def event(category, name, begin, length):
    return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": length}


def an_update(begin):
    """100 µs: a batch is fetched and copied, two kernels are launched and overlap for 5 µs."""
    return [
        event("kernel", "conv", begin + 40, 20),  # out of order, as in a trace
        event("user_annotation", waits.BATCH, begin, 10),
        event("user_annotation", waits.UPDATE, begin + 10, 80),
        event("cuda_runtime", "cudaMemcpyAsync", begin + 12, 2),
        event("gpu_memcpy", "Memcpy HtoD", begin + 15, 5),
        event("cuda_runtime", "cudaLaunchKernel", begin + 20, 4),
        event("cuda_driver", "cuLaunchKernelEx", begin + 30, 4),
        event("kernel", "norm", begin + 55, 10),
        event("cuda_runtime", "cudaStreamIsCapturing", begin + 70, 1),  # no launch
        event("gpu_user_annotation", waits.BATCH, begin, 90),  # the same, once more, as seen from the card
        event("cpu_op", "aten::conv2d", begin + 18, 10),
        {"ph": "f", "name": "ac2g", "ts": begin},
    ]


TRACE = [event for begin in (0, 100, 200, 300) for event in an_update(begin)]


def test_a_trace_becomes_seconds_an_update():
    read = waits.read(TRACE, followed=3, drawn=1)
    assert read["busy"] == pytest.approx({"CPU": 20e-6, "copy": 5e-6, "card": 25e-6})  # the overlap counts once
    assert read["launches"] == 2
    assert read["kernels"]["conv"] == pytest.approx([1, 20e-6]) and next(iter(read["kernels"])) == "conv"
    assert read["kernels"].keys() == {"conv", "norm", "Memcpy HtoD"}
    for lane, expected in {
        "CPU": [[0, 10e-6], [12e-6, 14e-6], [20e-6, 24e-6], [30e-6, 34e-6]],
        "copy": [[15e-6, 20e-6]],
        "card": [[40e-6, 60e-6], [55e-6, 65e-6]],
    }.items():
        assert read["spans"][lane] == [pytest.approx(span) for span in expected], lane
    with pytest.raises(ValueError, match="events must hold 5 updates, got 4"):
        waits.read(TRACE, followed=5)


@pytest.mark.long
@pytest.mark.parametrize("rung", ["baseline", "device"])
def test_updates_are_followed(rung, monkeypatch):
    """On a CPU, where there are batches and no kernels; the trace is a real one."""
    monkeypatch.setattr(waits, "TIMED", 3)
    setting = {"device": "cpu", "rung": rung, "norm": "batch", "epochs": 1, "images": 640}
    settings = ladder.settings(setting, 0)
    followed = waits.follow(replace(settings, model="mlp", workers=0, threads=1))
    assert followed["seconds_per_update"] > 0 and followed["busy"]["CPU"] > 0
    assert len(followed["spans"]["CPU"]) == waits.DRAWN and not followed["kernels"]


def test_without_a_card_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(waits.torch.cuda, "is_available", lambda: False)
    assert len(experiments.run("waits", results=tmp_path, quick=True, seeds=(0,), progress=False)) == 4
    assert "there is no CUDA device here" in capsys.readouterr().err and not list(tmp_path.rglob("*.jsonl"))


def test_the_recorded_rows_are_whole():
    assert [row["setting"] for row in RECORDED] == waits.grid()
    for row in RECORDED:
        captured = Settings(**row["settings"]).capture == "graph"
        assert captured == (row["launches"] < 10) and row["settings"]["norm"] == row["setting"]["norm"]
        assert 0 < row["busy"]["card"] < row["seconds_per_update"]
        kernels = sum(seconds for _, seconds in row["kernels"].values())
        assert kernels == pytest.approx(row["busy"]["card"] + row["busy"]["copy"], rel=0.05)
        assert row["device"]["driver"] and len(row["provenance"]["commit"]) == 12
