"""Real data sets: used where they are, never copied; a test that needs an absent one is skipped.

The environment variable RANGEFINDER_DATA names their folder; by default it lies beside the checkout.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VARIABLE, DEFAULT = "RANGEFINDER_DATA", "../shared/data"


def real_set(name: str) -> Path:
    """The folder of one set; skips the test where it is absent."""
    folder = (ROOT / os.environ.get(VARIABLE, DEFAULT)).resolve() / name
    if not folder.is_dir():
        pytest.skip(f"no real data: {VARIABLE} names no folder with {name} (default: {DEFAULT})")
    return folder
