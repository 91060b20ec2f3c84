"""Where real data lies beside the project, if it does. None of it may be copied into the project."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def dataset(name: str) -> Path | None:
    """The folder of a set, by the environment variable RANGEFINDER_DATA; None where it is absent."""
    folder = ROOT / os.environ.get("RANGEFINDER_DATA", "../shared/data") / name
    return folder if folder.is_dir() else None
