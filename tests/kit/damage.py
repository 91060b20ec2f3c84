"""Files that are not what was written."""

import shutil
from pathlib import Path


def flip_bit(path: Path, bit: int) -> None:
    """Turn over one bit of a file; doing it again mends it."""
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def copy_release(release: Path, folder: Path) -> Path:
    """A copy of a release, to be damaged; returns its path."""
    return Path(shutil.copytree(release, folder / release.name))
