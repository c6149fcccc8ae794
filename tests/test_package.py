"""The package as a whole: what it exports, what it costs to import, and the project's own laws."""

import doctest
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import intnet

ROOT = Path(__file__).resolve().parent.parent
MODULES = [module.name for module in pkgutil.walk_packages(intnet.__path__, "intnet.")]

# A room imports only from rooms further left; a star stands for every room.
ROOMS = {
    "errors": set(),
    "_version": set(),
    "_compile": set(),
    "arithmetic": {"_compile"},
    "formats": {"errors"},
    "random": {"_compile", "arithmetic", "errors"},
    "kernels": {"_compile", "arithmetic", "errors", "random", "formats"},
    "tensor": {"errors", "formats", "random", "kernels"},
    "datasets": {"errors", "formats"},
    "plotting": {"errors", "formats"},
    "jobs": set(),
    "online": {"errors", "formats", "arithmetic", "kernels", "jobs"},
    "regression": {"errors", "formats", "kernels", "jobs", "optimizers", "random"},
    "bit_centering": {"errors", "formats", "arithmetic", "jobs", "kernels", "optimizers", "random", "regression"},
    "compression": {"arithmetic", "errors", "formats", "kernels", "layers", "network", "optimizers", "recipe", "tensor"},
    "gradients": {"errors", "formats", "arithmetic", "kernels", "layers", "losses", "network", "random", "tensor"},
    "sweeps": {
        "_compile",
        "_version",
        "datasets",
        "errors",
        "files",
        "formats",
        "inputs",
        "kernels",
        "models",
        "online",
        "optimizers",
        "recipe",
        "training",
        "trainings",
    },
    "advisor": {
        "errors",
        "files",
        "formats",
        "kernels",
        "layers",
        "network",
        "optimizers",
        "recipe",
        "sweeps",
        "trainings",
    },
    "export": {
        "_version",
        "arithmetic",
        "errors",
        "files",
        "formats",
        "inputs",
        "kernels",
        "layers",
        "losses",
        "network",
        "optimizers",
        "random",
        "recipe",
        "tensor",
        "training",
    },
    "studies": {
        "advisor",
        "_version",
        "bit_centering",
        "errors",
        "files",
        "formats",
        "gradients",
        "datasets",
        "export",
        "plotting",
        "online",
        "sweeps",
        "checkpoint",
        "compression",
        "inputs",
        "jobs",
        "kernels",
        "layers",
        "models",
        "network",
        "optimizers",
        "random",
        "recipe",
        "regression",
        "telemetry",
        "tensor",
        "training",
        "trainings",
    },
    "checkpoint": {"_version", "errors", "files", "training"},
    "commandline": {"errors", "files", "report"},
    "files": {"errors"},
    "report": {"files"},
    "recipe": {"errors", "formats"},
    "layers": {"errors", "formats", "arithmetic", "kernels", "recipe", "tensor"},
    "losses": {"errors", "formats", "kernels", "layers", "recipe", "tensor"},
    "optimizers": {"errors", "formats", "arithmetic", "random", "kernels", "layers", "recipe", "tensor"},
    "models": {"errors", "layers"},
    "network": {"errors", "kernels", "layers", "losses", "recipe", "tensor"},
    "telemetry": set(),
    "inputs": {"errors", "formats", "kernels", "recipe", "tensor"},
    "training": {
        "errors",
        "formats",
        "random",
        "kernels",
        "tensor",
        "layers",
        "losses",
        "optimizers",
        "network",
        "inputs",
        "telemetry",
    },
    "trainings": {
        "datasets",
        "errors",
        "inputs",
        "models",
        "network",
        "optimizers",
        "recipe",
        "training",
    },
    "sklearn": {"errors", "formats", "tensor", "recipe", "layers", "optimizers", "network", "inputs", "telemetry", "training"},
}


def test_every_public_name_is_there():
    assert sorted(intnet.__all__) == dir(intnet)  # ruff holds the order of the list
    assert len(set(intnet.__all__)) == len(intnet.__all__)
    for name in intnet.__all__:
        assert getattr(intnet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        intnet.nonsense  # noqa: B018


def test_import_is_light():
    code = "import sys, intnet; print([m for m in ('numba', 'sklearn', 'xarray', 'matplotlib', 'scipy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    # A compiled function hides its docstring from doctest; its Python source has it.
    functions = {key: getattr(value, "py_func", value) for key, value in vars(module).items()}
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner()
    for key, value in functions.items():
        if getattr(value, "__module__", None) == name and callable(value):
            for test in finder.find(value, key, globs=vars(module).copy()):
                runner.run(test)
    assert runner.failures == 0


def sources(folder):
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", sources("intnet"), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_one_way(path):
    room = path.relative_to(ROOT / "intnet").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    imported = set(re.findall(r"^\s*(?:from|import) intnet\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    imported |= set(re.findall(r"^\s*from intnet import (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert imported <= ROOMS[room] | {room}


def test_cuda_is_imported_in_kernels_alone():
    for path in sources("intnet"):
        if "kernels" not in path.parts:
            assert not re.search(r"import.*\bcuda\b", path.read_text(encoding="utf-8")), path


def test_the_library_does_not_print():
    for path in sources("intnet"):
        assert not re.search(r"^\s*print\(", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_files_stay_small_enough_to_hold_in_the_head():
    for folder in ("intnet", "experiments", "benchmarks", "tests"):
        for path in sources(folder):
            longest = 900 if path.name == "arithmetic.py" else 500  # the one place where bits are decided
            assert len(path.read_text(encoding="utf-8").splitlines()) <= longest, path


def test_notebooks_are_stripped():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), path
            assert cell.get("execution_count") is None, path
