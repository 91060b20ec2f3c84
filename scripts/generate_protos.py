"""Generates the Python code and type stubs of every proto under protos/, in place.

Run by `make protos` with the pinned generator; the output is committed. `--check` writes to a
temporary folder instead and fails where the committed files differ.
"""

import argparse
import filecmp
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def generate(out: Path) -> None:
    """Write the generated files of every proto below `out`; exit where the compiler refuses."""
    sources = sorted(str(path) for path in PROTOS.rglob("*.proto"))
    arguments = [
        "protoc",
        f"-I{PROTOS}",
        f"-I{WELL_KNOWN}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("generate_protos: the compiler refused the protos, see above")


def generated_files(out: Path) -> Iterator[Path]:
    """The generated files below `out`, relative to it."""
    for pattern in ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi"):
        yield from (path.relative_to(out) for path in (out / "rangefinder").rglob(pattern))


def check() -> None:
    """Fail where a committed file is not what the generator makes of the protos now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh, kept = set(generated_files(Path(folder))), set(generated_files(ROOT))
        stale = fresh ^ kept
        stale |= {
            path
            for path in fresh & kept
            if not filecmp.cmp(Path(folder) / path, ROOT / path, shallow=False)
        }
    if stale:
        names = ", ".join(str(path) for path in sorted(stale))
        raise SystemExit(f"generate_protos: run `make protos`, these are out of date: {names}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if parser.parse_args().check:
        check()
    else:
        generate(ROOT)
    print("generate_protos: up to date", file=sys.stderr)


if __name__ == "__main__":
    main()
