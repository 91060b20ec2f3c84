"""Imports all generated code and the client: shows that they load beside what is installed.

`make check` runs it where the newest supported gRPC and protobuf are, and nothing but what the
client needs; the tests run on the locked versions, which are the oldest supported.
"""

import importlib
import sys
from pathlib import Path

import google.protobuf
import grpc

ROOT = Path(__file__).resolve().parent.parent


def module_names() -> list[str]:
    """Every generated module, then the clients that are built on them."""
    generated = sorted((ROOT / "rangefinder").rglob("*_pb2*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in generated]
    return [*names, "rangefinder.client", "rangefinder.sync"]


def main() -> None:
    names, faults = module_names(), []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # gRPC and protobuf raise classes of their own for old versions.
            faults.append(f"check_imports: {name}: {type(error).__name__}: {error}")
    if faults:
        raise SystemExit("\n".join(faults))
    versions = f"grpcio {grpc.__version__} and protobuf {google.protobuf.__version__}"
    print(f"check_imports: {len(names)} modules load on {versions}", file=sys.stderr)


if __name__ == "__main__":
    main()
