"""YAML and JSON documents as frozen dataclasses: read, checked once, written.

An unknown key, a missing one or a value out of bounds is refused in one line that names the file
and the key. Only this file knows pydantic and PyYAML.
"""

import json
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter
from pydantic import ValidationError as _ValidationError

from rangefinder.errors import InputRefused

T = TypeVar("T")

# What a document's dataclass sets as __pydantic_config__: unknown keys are errors.
STRICT: ConfigDict = ConfigDict(extra="forbid")

# PyYAML lets out what its makers of values raise: for 2020-13-45, 0x_, !!bool maybe, !!timestamp soon.
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError)

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=0, le=65_535)]
BatchRows = Annotated[int, Field(ge=1, le=512)]  # Of 1,024 with all their exclusions, 64 MiB are full.
WorkerCount = Annotated[int, Field(ge=1, le=128)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Pause = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
# A router's worker has the name of its router, a slash and a number.
WorkerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[0-9]+)?$")]
Address = Annotated[str, Field(pattern=r"^[^\s:/]+:[0-9]{1,5}$")]


def _key_from_text(value: object) -> object:
    return int(value, 16) if isinstance(value, str) else value


# Keys are written as 16 hexadecimal digits: JSON readers elsewhere round integers above 2^53.
Key = Annotated[
    int,
    BeforeValidator(_key_from_text),
    Field(ge=0, le=2**64),
    PlainSerializer(lambda key: f"{key:016x}", return_type=str),
]


def from_yaml(text: str, kind: type[T], source: str) -> T:
    """Parse and check a YAML document; `source` names it in errors. Raises InputRefused."""
    try:
        content = yaml.load(text, Loader=yaml.CSafeLoader)
    except _NOT_YAML as error:
        raise InputRefused(f"{source}: not YAML: {_one_line(error)}") from None
    return from_values(content if content is not None else {}, kind, source)


def from_json(text: str | bytes, kind: type[T], source: str) -> T:
    """Parse and check a JSON document; `source` names it in errors. Raises InputRefused."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputRefused(f"{source}: not JSON: {_one_line(error)}") from None
    return from_values(content, kind, source)


def from_values(content: object, kind: type[T], source: str) -> T:
    """Check plain values against a dataclass. Raises InputRefused."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except _ValidationError as error:
        raise InputRefused(f"{source}: {_first_fault(error)}") from None
    except InputRefused as error:
        raise InputRefused(f"{source}: {error}") from None


def to_values(document: object) -> Any:
    """The document as plain values, as written to YAML or JSON."""
    return TypeAdapter(type(document)).dump_python(document, mode="json")


def to_yaml(document: object) -> str:
    """The document as YAML, keys in the order of the dataclass."""
    return yaml.dump(to_values(document), Dumper=yaml.CSafeDumper, sort_keys=False, width=100)


def to_json(document: object) -> str:
    """The document as indented JSON."""
    return json.dumps(to_values(document), indent=2) + "\n"


def _first_fault(error: _ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    place = ".".join(" ".join(str(part).split()) for part in fault["loc"]) or "document"
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{place}: unknown key"
    return f"{place}: {fault['msg']}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
