"""What all tests share: quiet Hypothesis, and the folder of the real data where there is one."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # `naive` from every folder of tests

settings.register_profile("intnet", deadline=None, derandomize=True)  # first calls compile; every run is the same
settings.load_profile("intnet")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder named by $INTNET_DATA."""
    folder = os.environ.get("INTNET_DATA")
    if not folder:
        pytest.skip("$INTNET_DATA names no folder with the real data sets")
    return Path(folder)


_EARLY = "test_no_kernel_holds_a_floating_point_instruction"
_begun = []


def pytest_collection_modifyitems(items):
    """Ask last for what takes longest: it is begun first, and runs beside the other tests."""
    items.sort(key=lambda item: item.name == _EARLY)


def pytest_collection_finish(session):
    """Begin it, if it was selected."""
    for item in session.items:
        if item.name == _EARLY and not session.config.option.collectonly and (early := item.module.begin_early()):
            _begun.append(early)


def pytest_sessionfinish():
    """End it, if nobody waited for it."""
    for early in _begun:
        early.end()
