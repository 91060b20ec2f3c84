"""The one place that opens, syncs and renames files that must outlive a crash.

    new file   written under a temporary name, fsynced, renamed, folder fsynced
    new folder built under a temporary name beside its place, every file fsynced, then renamed

Readers therefore see a whole file or none. Numbers are little-endian NumPy `.npy` files, so that
they can be mapped and looked at with common tools.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from rangefinder.errors import AddressInUse, InputRefused, ReleaseDamaged
from rangefinder.hashing import FileChecksum

BLOCK_BYTES = 1 << 20


def read_text(path: Path) -> str:
    """The whole of a small UTF-8 file. Raises InputRefused where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputRefused(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise InputRefused(f"{path}: {_why(error)}") from None


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically and durably. Raises InputRefused where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            sync(file)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputRefused(f"{path}: {_why(error)}") from None
    finally:
        with suppress(OSError):  # Renamed by now, or never there.
            temporary.unlink()


def sync(file: IO[Any]) -> None:
    """Flush a file to the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make what was created, renamed or removed in a folder outlive a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Build a folder under a temporary name; it takes its place whole when the block ends well.

    A folder that is already there, and not empty, is refused. What a failed or killed attempt left
    is removed by the next one. Raises AddressInUse while another attempt is under way.
    """
    require_free(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with _claimed(temporary, path):
            yield temporary
            _sync_tree(temporary)
            if path.exists():
                path.rmdir()
            temporary.replace(path)
            sync_folder(path.parent)
    except OSError as error:
        raise InputRefused(f"{error.filename or path}: {_why(error)}") from None


@contextmanager
def _claimed(temporary: Path, path: Path) -> Iterator[None]:
    """Hold an empty temporary folder alone, and leave nothing of it."""
    temporary.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AddressInUse(f"{path}: another command is writing it now") from None
        for left in temporary.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    finally:
        os.close(descriptor)


def require_free(path: Path) -> None:
    """Refuse a path where new_folder could not build: something is there, or no folder can be made."""
    try:
        is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
        parent = next(each for each in path.absolute().parents if each.exists())
    except OSError as error:
        raise InputRefused(f"{path}: {_why(error)}") from None
    if not is_free:
        raise InputRefused(f"{path}: exists already: choose another --out, or remove it")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        why = "permission denied" if parent.is_dir() else "not a directory"
        raise InputRefused(f"{path}: {parent}: {why}")


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            with open(Path(folder) / name, "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(folder))


def checksum(path: Path) -> str:
    """XXH3-128 of a file, read in blocks. Raises ReleaseDamaged where it cannot be read."""
    state = FileChecksum()
    block = memoryview(bytearray(BLOCK_BYTES))
    try:
        with open(path, "rb", buffering=0) as file:
            while size := file.readinto(block):
                state.update(block[:size])
    except OSError as error:
        raise ReleaseDamaged(f"{path}: {_why(error)}") from None
    return state.hexdigest()


class ArrayWriter:
    """Writes a `.npy` file row by row, so that the array need not fit into memory.

    `shape` is that of the finished array; closing before every row was written is a bug.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 (closed by close)
        self._dtype, self._rows_left, self._shape = np.dtype(dtype), shape[0], shape
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, rows: npt.NDArray[Any]) -> None:
        assert rows.shape[1:] == self._shape[1:], (rows.shape, self._shape)
        self._rows_left -= len(rows)
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)

    def close(self) -> None:
        assert self._rows_left == 0, f"{self._file.name}: {self._rows_left} rows are missing"
        self._file.close()


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array that is in memory as a `.npy` file."""
    writer = ArrayWriter(path, array.dtype, array.shape)
    writer.write(array)
    writer.close()


def map_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A `.npy` file as a read-only mapped array. Raises ReleaseDamaged where it is another."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False) if shape[0] else np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise ReleaseDamaged(f"{path}: {error}") from None
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ReleaseDamaged(f"{path}: holds {array.dtype}{array.shape}, not {dtype}{shape}")
    return np.asarray(array)


@contextmanager
def exclusive(path: Path, holder: str) -> Iterator[None]:
    """Hold a lock file until the block ends.

    Raises AddressInUse where another process holds it, InputRefused where it cannot be made.
    """
    try:
        file = open(path, "a+b")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputRefused(f"{path}: {_why(error)}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise InputRefused(f"{path}: {_why(error)}") from None
            raise AddressInUse(f"{path.parent}: in use by another {holder}") from None
        yield


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
