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
