"""How intnet's functions are compiled: one decorator, one disk cache that cannot go stale.

Numba's disk cache looks at the file of the function alone, so an edit in an imported function is missed and the old bits
come back. Here the cache folder carries a hash of every source file that compiled code can depend on: any edit of one starts a
new one. The rooms that are left out, as no kernel may import them, are listed; a test holds that.
"""

import hashlib
import importlib.util
import marshal
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import numba

F = TypeVar("F", bound=Callable)

PACKAGE = Path(__file__).resolve().parent
APART = (
    "advisor", "bit_centering.py", "checkpoint.py", "commandline.py", "compression", "datasets", "export", "files.py",
    "gradients", "inputs.py", "jobs.py", "layers", "losses.py", "models.py", "network.py", "online.py", "optimizers",
    "plotting", "recipe.py", "regression.py", "report", "sklearn.py", "studies", "sweeps", "telemetry.py", "tensor",
    "training.py", "trainings.py",
)  # fmt: skip
"""What holds no compiled function, and nothing that one imports: an edit there leaves the cache as it is."""

KEPT_CACHES = 3  # the current one and those of the sources last worked on (two branches, say)


def source_hash(package: Path = PACKAGE) -> str:
    """Return a hash of the package's Python sources but those that stand apart: their paths and their bytes."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] in APART:
            continue
        source = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(source)}\0".encode())
        digest.update(source)
    return digest.hexdigest()[:16]


def refuse_stale_bytecode(package: Path = PACKAGE) -> None:
    """Raise ImportError if Python may have loaded other code than the sources say, and remove that code's file.

    Python takes a ``.pyc`` for current if the source's time, in whole seconds, and size are those it was made from. An edit
    within the second that keeps the size is missed, and wrong code would be cached as that of the right sources. So where
    both files are about equally old, their contents are compared.
    """
    for path in package.rglob("*.py"):
        bytecode = Path(importlib.util.cache_from_source(str(path)))
        try:
            if abs(bytecode.stat().st_mtime - path.stat().st_mtime) > 2:
                continue
            code = marshal.loads(bytecode.read_bytes()[16:])
            stale = code != compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except (OSError, ValueError, EOFError, TypeError):
            continue  # no such file, or none that Python would load
        if stale:
            bytecode.unlink(missing_ok=True)
            raise ImportError(f"{bytecode} was older than its source and has been removed; start Python again")


def _cache_roots() -> list[Path]:
    """Return the folders that may hold the cache, the preferred one first."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen)]
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [PACKAGE / "__pycache__", home / "intnet"]


@cache
def cache_folder() -> Path | None:
    """Return the folder of the compiled code of just these sources, or None where nothing can be written."""
    refuse_stale_bytecode()
    name = f"numba-{source_hash()}"
    for root in _cache_roots():
        folder = root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)  # in use: the newest are kept
            others = [other for other in root.glob("numba-*") if other.name != name]
            others.sort(key=lambda other: other.stat().st_mtime, reverse=True)
        except OSError:
            continue
        if not os.access(folder, os.W_OK):
            continue
        for stale in others[KEPT_CACHES - 1 :]:
            shutil.rmtree(stale, ignore_errors=True)
        return folder
    return None


def jit(function: F) -> F:
    """Compile a function for the CPU: no Python objects, no lock held, integer semantics of NumPy, cached on disk.

    With ``NUMBA_DISABLE_JIT=1`` the function itself comes back, to be run as plain Python.
    """
    folder = cache_folder()
    if folder is None:
        return numba.njit(nogil=True, error_model="numpy")(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)  # read when the cache is made, so other packages' functions keep theirs
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before
