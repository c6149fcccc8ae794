"""What the sections of `gpu.py` share: rows that outlive a crash, a clock, the machine's description, the report.

A row is a dictionary: `section`, `name`, `status`, and what else is known. The statuses: "same" (all bits), "differs", "failed"
(it raised, or did not end), "left out" (no time), "timed".
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BADGES = {"differs": "**differs**", "failed": "**failed**"}


class DiffersError(AssertionError):
    """Some bits are not those of the definition."""


def check_equal(have: Any, want: Any, what: str = "") -> None:
    """Raise DiffersError, which says where, unless two arrays have the same type, shape and numbers."""
    have, want = np.asarray(have), np.asarray(want)
    if have.shape != want.shape or have.dtype != want.dtype:
        raise DiffersError(f"{what} {have.dtype} {have.shape} for {want.dtype} {want.shape}")
    places = np.flatnonzero(have.reshape(-1) != want.reshape(-1))
    if places.size:
        at = places[0]
        numbers = f"{have.reshape(-1)[at]} for {want.reshape(-1)[at]}"
        raise DiffersError(f"{what} {places.size} of {have.size} numbers, the first at {at}: {numbers}")


def one_line(error: object, most: int = 300) -> str:
    """Return a message, or an exception with its type, on one line."""
    text = " ".join(str(error).split())
    return (f"{type(error).__name__}: {text}" if isinstance(error, BaseException) else text)[:most]


class Rows:
    """The rows of one section, each written when it is known, and the seconds that the section has.

    Parameters
    ----------
    section : str
    path : Path
        A file of one row a line, in JSON.
    seconds : float
    """

    def __init__(self, section: str, path: Path, seconds: float) -> None:
        self.section, self.path, self.end = section, path, time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left."""
        return self.end - time.monotonic()

    def add(self, name: str, status: str, **columns: Any) -> None:
        """Write a row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"section": self.section, "name": name, "status": status, **columns}) + "\n")

    def piece(self, name: str, function: Callable[[], dict[str, Any] | None], *, need: float = 2, status: str = "same") -> None:
        """Run a function if there is time, and write a row with what it returns; what it raises becomes a row too."""
        if self.left() < need:
            self.add(name, "left out", detail=f"{max(self.left(), 0):.0f} s left, {need:.0f} s needed")
            return
        start = time.perf_counter()
        try:
            columns = function() or {}
        except DiffersError as error:
            columns, status = {"detail": one_line(str(error))}, "differs"
        except Exception as error:
            columns, status = {"detail": one_line(error)}, "failed"
        self.add(name, status, **{"cost": round(time.perf_counter() - start, 3), **columns})


# 1. The machine ----------------------------------------------------------------------------------------------------------


def _output_of(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def machine() -> dict[str, str]:
    """Return what a report must say about the machine and the program; what cannot be found out is left out."""
    from intnet.kernels.cuda._driver import SIMULATED, cuda

    found = {}
    if SIMULATED:
        found["GPU"] = "none: Numba's simulator"
    else:
        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        capability = ".".join(map(str, device.compute_capability))
        found["GPU"] = f"{name}, compute capability {capability}, {device.MULTIPROCESSOR_COUNT} multiprocessors"
        try:
            found["GPU memory"] = f"{cuda.current_context().get_memory_info()[1] / 2**30:.1f} GiB"
        except Exception as error:  # a report without it is a report
            found["GPU memory"] = one_line(error)
        found["driver"] = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split("\n")[0]
        try:
            found["CUDA runtime"] = ".".join(map(str, cuda.runtime.get_version()))
        except Exception as error:
            found["CUDA runtime"] = one_line(error)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found |= {"CPU": f"{_processor()}, {cores} cores", "system": platform.platform(), "Python": platform.python_version()}
    for name in ("intnet", "numpy", "numba", "numba-cuda", "llvmlite", "cuda-bindings"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    changed = " with changes" if _output_of("git", "status", "--porcelain", "--untracked-files=no") else ""
    found["commit"] = _output_of("git", "rev-parse", "HEAD") + changed
    return {name: value for name, value in found.items() if value}


# 2. The report -----------------------------------------------------------------------------------------------------------


def verdict(rows: list[dict[str, Any]]) -> str:
    """Say in one line whether the bits are the same."""
    count = {status: sum(row["status"] == status for row in rows) for status in ("same", "differs", "failed", "left out")}
    if count["differs"]:
        return f"**Bits differ** in {count['differs']} of {count['differs'] + count['same']} comparisons."
    rest = "".join(f"; {count[status]} {status}" for status in ("failed", "left out") if count[status])
    return f"All bits are the same in {count['same']} comparisons{rest}." if count["same"] else f"Nothing was compared{rest}."


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    for unit, scale in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1 or unit == "us":
            return f"{value * scale:.3g} {unit}"
    return ""


def _table(head: list[str], lines: list[list[str]]) -> list[str]:
    rule = ["---"] + ["---:" if name in ("time", "call", "first", "floor", "share", "cost") else "---" for name in head[1:]]
    cells = [head, rule, *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return ["| " + " | ".join(line) + " |" for line in cells] + [""]


def _times(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        share = f"{row['share']:.0%}" if row.get("share") else ""
        name = row["name"] if row["status"] == "timed" else f"{row['name']} ({BADGES.get(row['status'], row['status'])})"
        times = [_seconds(row.get(key)) for key in ("seconds", "wall", "first")]
        floor = _seconds(row.get("floor")) + (f" ({row['bound']})" if row.get("bound") else "")
        lines.append([name, *times, floor, share, row.get("detail", "")])
    return _table(["what", "time", "call", "first", "floor", "share", "remarks"], lines)


def markdown(about: dict[str, str], rows: list[dict[str, Any]], sections: list[dict[str, Any]], notes: list[str]) -> str:
    """Return the report: the machine, the verdict, what was compared, what was timed, what each section cost."""
    checks = [row for row in rows if row.get("check")]
    times = [row for row in rows if not row.get("check")]
    text = ["# intnet on a GPU", "", *_table(["", ""], [[name, value] for name, value in about.items()])]
    text += [*(f"{note}\n" for note in notes), "## The same bits", "", verdict(checks), ""]
    lines = [
        [
            row["section"],
            row["name"],
            BADGES.get(row["status"], row["status"]),
            _seconds(row.get("cost")),
            row.get("detail", ""),
        ]
        for row in checks
    ]
    text += _table(["section", "what", "bits", "cost", "remarks"], lines)
    if times:
        text += ["## Speed", "", TIMES, ""]
        for section in dict.fromkeys(row["section"] for row in times):
            text += [f"### {section}", "", *_times([row for row in times if row["section"] == section])]
    text += ["## Sections", "", "What each took, compiling and its own start included.", ""]
    text += _table(["section", "cost", "end"], [[one["name"], _seconds(one["cost"]), one["end"]] for one in sections])
    return "\n".join(text)


TIMES = (
    "Medians. Time: between two events on the device, queued while it was busy. Call: from the call to the end of its work, "
    "seen from the host. First: the first call, which compiles. Floor: the bytes that must move over the copy's "
    "rate, or the multiplications over the rate of a loop in registers, whichever is longer; share: floor over time."
)
