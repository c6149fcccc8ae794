"""The cache of compiled code: any edit of a source that compiled code can depend on starts a new one."""

import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from intnet import _compile

MAIN = "from package.outer import answer; print(answer(1))"


def test_what_stands_apart_is_no_part_of_compiled_code():
    """No function is compiled there; and nothing of it is imported by the rest, but for what the package exports."""
    kept = [path for path in _compile.PACKAGE.rglob("*.py") if "__pycache__" not in path.parts]
    for name in _compile.APART:
        assert (_compile.PACKAGE / name).exists(), name
    for path in kept:
        parts, text = path.relative_to(_compile.PACKAGE).parts, path.read_text(encoding="utf-8")
        if parts[0] in _compile.APART:
            assert not re.search(r"import .*\bjit\b", text), path
        elif parts != ("__init__.py",):
            imported = re.findall(
                r"^\s*(?:from intnet\.(\w+)|from intnet import (.+)$|import intnet\.(\w+))", text, re.MULTILINE
            )
            names = {name.strip() for found in imported for part in found for name in part.split(",") if name.strip()}
            assert not names & {name.removesuffix(".py") for name in _compile.APART}, path


def test_the_hash_follows_every_source(tmp_path):
    (tmp_path / "inner").mkdir()
    one, two = tmp_path / "a.py", tmp_path / "inner" / "b.py"
    one.write_text("x = 1\n")
    two.write_text("y = 1\n")
    before = _compile.source_hash(tmp_path)
    assert _compile.source_hash(tmp_path) == before
    two.write_text("y = 2\n")
    edited = _compile.source_hash(tmp_path)
    two.rename(tmp_path / "inner" / "c.py")
    moved = _compile.source_hash(tmp_path)
    assert len({before, edited, moved}) == 3
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "d.py").write_text("z = 1\n")
    assert _compile.source_hash(tmp_path) == moved


def test_stale_bytecode_is_refused(tmp_path):
    """An edit within the second in which the bytecode was made, and of the same size, is invisible to Python."""
    source = tmp_path / "module.py"
    source.write_text("x = 1\n")
    py_compile.compile(str(source))
    _compile.refuse_stale_bytecode(tmp_path)
    times = source.stat().st_mtime_ns
    source.write_text("x = 2\n")
    os.utime(source, ns=(times, times))
    with pytest.raises(ImportError, match="older than its source"):
        _compile.refuse_stale_bytecode(tmp_path)
    _compile.refuse_stale_bytecode(tmp_path)  # it is gone


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_an_edit_in_an_imported_function_is_not_missed(tmp_path):
    """Numba's own cache would answer 2 both times."""
    package = tmp_path / "package"
    package.mkdir()
    source = Path(_compile.__file__).read_text()
    (package / "__init__.py").touch()
    (package / "_compile.py").write_text(source)
    (package / "outer.py").write_text(
        "from package._compile import jit\nfrom package.inner import step\n\n@jit\ndef answer(x):\n    return step(x)\n"
    )
    answers = []
    for step in (1, 10):
        (package / "inner.py").write_text(f"from package._compile import jit\n\n@jit\ndef step(x):\n    return x + {step}\n")
        for _ in range(2):  # compiled, then from the cache
            environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
            result = subprocess.run(
                [sys.executable, "-c", MAIN], cwd=tmp_path, capture_output=True, text=True, env=environment, check=True
            )
            answers.append(result.stdout.strip())
    assert answers == ["2", "2", "11", "11"]
    assert len(list((package / "__pycache__").glob("numba-*/**/*.nbi"))) >= 2


def test_old_caches_are_cleared_away(tmp_path, monkeypatch):
    monkeypatch.setattr(_compile, "_cache_roots", lambda: [tmp_path])
    for age in range(5):
        (tmp_path / f"numba-{age}").mkdir()
        os.utime(tmp_path / f"numba-{age}", (1000 - age, 1000 - age))
    folder = _compile.cache_folder.__wrapped__()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {folder.name, "numba-0", "numba-1"}


def test_without_a_writable_folder_there_is_no_cache(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr(_compile, "_cache_roots", lambda: [blocked, blocked / "below"])
    assert _compile.cache_folder.__wrapped__() is None
    monkeypatch.setattr(_compile, "cache_folder", lambda: None)
    function = _compile.jit(lambda x: x + 1)
    assert function(1) == 2


def test_other_packages_keep_their_cache_folder():
    before = numba.config.CACHE_DIR
    _compile.jit(shutil.rmtree)
    assert before == numba.config.CACHE_DIR
