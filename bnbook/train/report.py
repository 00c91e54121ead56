"""What a run was: a dictionary of plain values, for a JSON file."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict

import torch

from .. import provenance
from .loop import Result

VERSION = 1  # of what a run does and a report holds; reports of another version are not compared with those of this one

ACCURACIES = (0.85, 0.90)
FIELDS = (
    "version settings history final steps diverged parameters processes seconds seconds_per_epoch seconds_to"
    " images_per_second memory device provenance"
).split()


def describe(result: Result, command: str) -> dict:
    """Everything about a run that can be told afterwards, in the words of JSON."""
    settings, training = result.settings, result.seconds["training"]
    return provenance.plain(
        {
            "version": VERSION,
            "settings": asdict(settings),
            "history": result.history,
            "final": result.final,
            "steps": result.steps,
            "diverged": result.diverged,
            "parameters": sum(p.numel() for p in result.model.parameters()),
            "processes": result.processes,
            "seconds": result.seconds,
            "seconds_per_epoch": training / result.epochs,
            "seconds_to": {"split": settings.evaluate, **_seconds_to(result), "final": training},
            "images_per_second": result.steps * settings.batch_size / training,
            "memory": result.memory,
            "device": device(settings.device),
            "provenance": provenance.provenance(command, torch=torch.__version__, threads=str(settings.threads)),
        }
    )


def problem(row: dict) -> str | None:
    """What is wrong with a report ("has no seconds"), or None."""
    missing = [field for field in FIELDS if field not in row]
    return f"has no {', '.join(missing)}" if missing else None


def summary(row: dict) -> str:
    """A report in a few lines."""
    seconds, to, source = row["seconds"], row["seconds_to"], row["provenance"]
    reached = ", ".join(f"{to[key]:.2f} s to {key}" for key in map(str, ACCURACIES) if to[key] is not None)
    lines = {
        "test accuracy": f"{row['final']['test_accuracy']:.4f}" + (", diverged" if row["diverged"] else ""),
        "training": f"{seconds['training']:.2f} s, {row['seconds_per_epoch']:.3f} s an epoch, "
        f"{row['images_per_second']:,.0f} images/s",
        f"{to['split']} accuracy": reached or f"below {ACCURACIES[0]}",
        "apart from it": ", ".join(f"{name} {seconds[name]:.2f} s" for name in seconds if name != "training"),
        "memory": f"{row['memory']['bytes'] / 2**20:,.0f} MiB, {row['memory']['of']}",
        "device": ", ".join(f"{name} {value}" for name, value in row["device"].items()),
        "made by": f"bnbook {source['bnbook']}, commit {source['commit']}, torch {source['torch']}, {source['date']}",
    }
    return "\n".join(f"{name:<14} {text}" for name, text in lines.items())


def device(kind: str) -> dict:
    """What the updates were computed on, and in which of its modes."""
    if kind != "cuda":
        return {"type": kind, "name": provenance.provenance("")["processor"], "instructions": _instructions(kind)}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "type": kind,
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_matrix_products": torch.backends.cuda.matmul.allow_tf32,
    }


def _instructions(kind: str) -> str:
    return torch.backends.cpu.get_cpu_capability() if kind == "cpu" else platform.machine()


def _driver() -> str:
    """The version of the NVIDIA driver, which PyTorch does not know."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=30).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def _seconds_to(result: Result) -> dict[str, float | None]:
    """Seconds of training until the evaluated images first reached an accuracy; None where they never did."""
    return {
        str(accuracy): next((row["seconds"] for row in result.history if row["accuracy"] >= accuracy), None)
        for accuracy in ACCURACIES
    }
