"""Every GPU kernel compiles without a GPU, for the oldest device and a new one, and holds no floating point."""

import importlib
import pkgutil
import re
from types import SimpleNamespace

import numba
import pytest

import intnet.kernels.cuda as package
from intnet.kernels.cuda import _driver, tiles

OLDEST, NEWER = (7, 5), (9, 0)
FLOATING = re.compile(r"\.b?f(?:16|32|64)\w*|%fd?\d+|\b\w*e[45]m[23]\w*")


def probe(out):
    out[0] = min(out[0], out[1])


def compiler_missing():
    """Return why nothing can be compiled, or None."""
    if _driver.SIMULATED:
        return "the simulator compiles nothing"
    if numba.config.DISABLE_JIT:
        return "nothing is compiled"  # nor can kernels call the rules then
    try:
        compiled(probe, "void(int32[::1])", OLDEST)
    except Exception as error:  # no NVVM, or a Numba whose own CUDA target has no min of two integers, such as 0.68
        return f"no compiler for the GPU: {' '.join(str(error).split())[:200]}"
    return None


def compiled(function, signature, capability):
    """Return a kernel's PTX."""
    try:
        from numba.cuda.core import sigutils  # numba-cuda
    except ImportError:
        from numba.core import sigutils
    types, _ = sigutils.normalize_signature(signature)
    dispatcher = importlib.import_module("numba.cuda.dispatcher")
    with pytest.MonkeyPatch.context() as patch:  # the functions that a kernel calls are compiled for the current device
        patch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=capability))
        return _driver.cuda.compile_ptx(function, types, cc=capability)[0]


_MISSING = compiler_missing()
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def cases():
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for kernel in _driver.KERNELS:
        function = kernel.function
        for signature in kernel.signatures:
            tiled = function.__module__ == tiles.__name__
            yield pytest.param(function, signature, tiled, id=f"{function.__module__}.{function.__qualname__}: {signature}")


@pytest.mark.parametrize(("function", "signature", "tiled"), list(cases()))
def test_no_floating_point(function, signature, tiled):
    for capability in (OLDEST, NEWER) if tiled else (OLDEST,):
        ptx = compiled(function, f"void({signature})", capability)
        assert ".entry" in ptx
        assert set(FLOATING.findall(ptx)) == set()
        if tiled:
            assert "__local_depot" not in ptx, "sums in memory"
            assert re.search(r"\.shared \.align 16 ", ptx)
            products = len(re.findall(r"\n\s*(?:dp4a\.s32\.s32|mad\.lo\.s32|mul\.wide\.s32|mul\.lo\.s(?:32|64)) ", ptx))
            loads = len(re.findall(r"\n\s*ld\.shared\.v[24]\.u(?:32|64) ", ptx))
            assert products >= 4 * loads > 0
