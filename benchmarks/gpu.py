"""Is the GPU right to the last bit, and how far from what it can do? One command, done within nine minutes.

    python benchmarks/gpu.py [--out report.md] [--json FILE] [--data-dir DIR] [--only SECTION[,SECTION]]
    NUMBA_ENABLE_CUDASIM=1 python benchmarks/gpu.py --quick       tests this program without a GPU: tiny sizes, equality only

First every kernel against its definition on the CPU, and whole trainings against the CPU's; then times, beside floors that are
measured on the same device: the rate of a copy, and of dp4a and of 32-bit multiply-adds in registers. Every section is
a process of its own, so that one that crashes, or hangs, loses nothing of the others; what no longer fits in the time is left
out, and the report says so.

Exit codes: 0 all bits are the same; 1 some differ, or a comparison failed; 2 there is no GPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _gpu_report import ROOT, Rows, machine, markdown, one_line, verdict

LIMIT, RESERVE = 520, 130
"""Seconds that the whole takes at most, and that comparisons leave to the times."""


@dataclass(frozen=True)
class Section:
    """A part of the report: what runs it, and the seconds it needs to be begun and may take at most."""

    run: Callable[[Rows, argparse.Namespace], None]
    least: float
    most: float
    check: bool = False


def sections() -> dict[str, Section]:
    """Return all sections in their order; their modules are imported when one runs."""

    def of(module: str, name: str) -> Callable[[Rows, argparse.Namespace], None]:
        return lambda rows, options: getattr(__import__(module), name)(rows, options)

    def test(path: Path) -> Callable[[Rows, argparse.Namespace], None]:
        return lambda rows, options: __import__("_gpu_checks").run_tests(rows, options, path)

    found = {
        "floors": Section(of("_gpu_times", "floors"), 5, 40),
        "kernels": Section(of("_gpu_checks", "kernels"), 10, 90, True),
        "grids": Section(of("_gpu_trainings", "grids"), 10, 60, True),
        "trainings": Section(of("_gpu_trainings", "trainings"), 20, 90, True),
    }
    tests = [*ROOT.glob("tests/kernels/test_cuda_*.py"), *ROOT.glob("tests/test_*_cuda.py")]
    for path in sorted(path for path in tests if path.stem != "test_cuda_ptx"):
        found[f"tests: {path.stem}"] = Section(test(path), 10, 60, True)
    return found | {
        "elementwise": Section(of("_gpu_times", "elementwise"), 10, 40),
        "products": Section(of("_gpu_times", "products"), 10, 40),
        "convolutions": Section(of("_gpu_times", "convolutions"), 10, 60),
        "steps": Section(of("_gpu_trainings", "time_steps"), 20, 90),
        "grid": Section(of("_gpu_trainings", "time_grid"), 10, 60),
    }


def run_section(name: str, section: Section, options: argparse.Namespace, seconds: float, folder: Path):
    """Run a section in a process of its own; return its rows and how it ended."""
    path, log = folder / "rows", folder / "log"
    path.write_text("")
    command = [sys.executable, str(Path(__file__).resolve()), "--section", name, "--rows", str(path), "--seconds", str(seconds)]
    command += ["--floors", json.dumps(options.floors)] + ["--quick"] * options.quick
    command += ["--data-dir", str(options.data_dir)] if options.data_dir else []
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            code, end = process.wait(seconds + 5), "done"
        except subprocess.TimeoutExpired:
            process.kill()
            code, end = process.wait(), f"stopped after {seconds + 5:.0f} s"
        except BaseException:
            process.kill()
            raise
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if end != "done" or code:
        last = next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "")
        end = end if end != "done" else f"exit code {code}"
        rows.append({"section": name, "name": "the whole section", "status": "failed", "detail": one_line(f"{end}: {last}")})
    return [{**row, "check": section.check} for row in rows], end


def run_all(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run the sections that are wanted and fit in the time; return their rows, and what each cost."""
    begin, rows, costs = time.monotonic(), [], []
    chosen = {name: one for name, one in sections().items() if not options.only or any(part in name for part in options.only)}
    with tempfile.TemporaryDirectory() as folder:
        for name, section in chosen.items():
            left = options.limit - (time.monotonic() - begin) - 6
            free = left - (RESERVE if section.check and len(chosen) > 1 and options.limit >= LIMIT else 0)
            if options.quick and not section.check and not options.only:
                continue
            start = time.monotonic()
            if free < section.least:
                end = f"left out: {max(free, 0):.0f} s left for it, {section.least:.0f} s needed"
                rows.append({"section": name, "name": "all", "status": "left out", "detail": end, "check": section.check})
            else:
                found, end = run_section(
                    name, section, options, free if options.quick else min(free, section.most), Path(folder)
                )
                rows += found
                options.floors |= {row["floor_of"]: row["rate"] for row in found if "floor_of" in row}
            costs.append({"name": name, "cost": time.monotonic() - start, "end": end})
            print(f"{name:32} {costs[-1]['cost']:7.1f} s  {end}", file=sys.stderr, flush=True)
    return rows, costs


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the report, in Markdown, to this file; else to standard output")
    parser.add_argument("--json", type=Path, help="also write all rows to this file")
    parser.add_argument("--data-dir", type=Path, help="folder of the MNIST files (else $INTNET_DATA); without, random images")
    parser.add_argument("--only", type=lambda text: text.split(","), help="sections whose names hold one of these words")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, equality only (times too where --only names them)")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds for the whole (default: {LIMIT})")
    for name in ("--section", "--rows", "--floors"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def find_machine() -> dict[str, str] | None:
    """Describe the machine; without a GPU, say so and return None. This process takes no part of the device: some serve one."""
    command = [sys.executable, str(Path(__file__).resolve()), "--section", "machine"]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(found.stdout.splitlines()[-1]) if found.returncode == 0 else None


def run_here(options: argparse.Namespace) -> int:
    """Run a section in this process."""
    warnings.filterwarnings("ignore", "NUMBA_ENABLE_CUDASIM", RuntimeWarning)
    if options.section != "machine":
        sections()[options.section].run(Rows(options.section, Path(options.rows), options.seconds), options)
        return 0
    from intnet.errors import DeviceError
    from intnet.kernels.cuda import _driver

    try:
        _driver.require()
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(machine()))
    return 0


def main() -> int:
    options = parse()
    options.floors = json.loads(options.floors) if options.floors else {}
    if options.section:
        return run_here(options)
    about = find_machine()
    if about is None:
        return 2
    rows, costs = run_all(options)
    notes = []
    if not (options.data_dir or os.environ.get("INTNET_DATA")):
        notes.append("No MNIST at hand: random images of its size.")
    if options.quick:
        notes.append("`--quick`: tiny sizes, to test this program; it says nothing about speed.")
    report = markdown(about, rows, costs, notes)
    if options.json:
        content = {"machine": about, "notes": notes, "rows": rows, "sections": costs}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.out:
        options.out.write_text(report, encoding="utf-8")
    else:
        print(report)
    checks = [row for row in rows if row["check"]]
    print(verdict(checks), file=sys.stderr)
    return int(any(row["status"] in ("differs", "failed") for row in checks))


if __name__ == "__main__":
    sys.exit(main())
