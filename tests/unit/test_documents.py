"""Documents: what is wrong is said in one line that names the file and the key."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefinder.documents import (
    STRICT,
    Address,
    Count,
    Key,
    Name,
    Port,
    Positive,
    Seconds,
    Share,
    from_json,
    from_yaml,
    to_json,
    to_yaml,
)
from rangefinder.errors import InputRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """A part of a document."""

    __pydantic_config__: ClassVar = STRICT

    key: Key = 0
    share: Share = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One of each kind of value."""

    __pydantic_config__: ClassVar = STRICT

    name: Name
    count: Count = 0
    positive: Positive = 1
    port: Port = 0
    seconds: Seconds = 1.0
    address: Address = "localhost:1"
    parts: tuple[Inner, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise InputRefused("this name is refused")


Reader = Callable[[str], Document]


def yaml(text: str) -> Document:
    return from_yaml(text, Document, "settings.yaml")


def json(text: str) -> Document:
    return from_json(text, Document, "settings.json")


def refusal(read: Reader, text: str) -> str:
    """The message with which a document is refused: one line, beginning with the file."""
    with pytest.raises(InputRefused) as refused:
        read(text)
    message = str(refused.value)
    assert 1 == len(message.splitlines())
    assert re.match(r"settings\.(yaml|json): \S", message)
    return message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: a\nnmae: b", "nmae: unknown key"),
        ("name: a\nparts: [{}, {kye: 1}]", "parts.1.kye: unknown key"),
        ("name: a\n1: b", "1: "),
        ('name: a\n"b\\nc": 1', "unknown key"),
        ("count: 1", "name: "),
        ("", "name: "),
        ("name: a\ncount: -1", "count: "),
        ("name: a\ncount: many", "count: "),
        ("name: a\ncount: 1.5", "count: "),
        ("name: a\npositive: 0", "positive: "),
        ("name: a\nport: 65536", "port: "),
        ("name: a\nseconds: 0", "seconds: "),
        ("name: a\nseconds: .inf", "seconds: "),
        ("name: a\nseconds: .nan", "seconds: "),
        ("name: a\naddress: 'localhost'", "address: "),
        ("name: a\naddress: 'a b:1'", "address: "),
        ("name: a\naddress: 'http://a:1'", "address: "),
        ("name: ''", "name: "),
        ("name: -a", "name: "),
        ("name: a/b", "name: "),
        ('name: "a\\n"', "name: "),
        ("name: " + 129 * "a", "name: "),
        ("name: a\nparts: [{share: 1.01}]", "parts.0.share: "),
        ("name: a\nparts: [{share: .nan}]", "parts.0.share: "),
        ("name: a\nparts: [{key: 1x}]", "parts.0.key: "),
        ("name: a\nparts: [{key: '10000000000000001'}]", "parts.0.key: "),
        ("name: a\nparts: [{key: -1}]", "parts.0.key: "),
        ("name: a\nparts: 7", "parts: "),
        ("name: a\nnotes: [a]", "notes: "),
        ("name: refused", "this name is refused"),
        ("[name, a]", "document: "),
        ("just a text", "document: "),
    ],
)
def test_what_is_wrong_is_named(text: str, place: str) -> None:
    """An unknown key, a missing one, or a value out of bounds is named with its place."""
    assert place in refusal(yaml, text)


@pytest.mark.parametrize(
    "text",
    [
        "name: [a",
        "name: 'a",
        "name: a\n  count: 1",
        "\tname: a",
        "name: \0",
        "name: *nowhere",
        "name: !!python/object:os.system x",
        "--- {}\n--- {}",
        # PyYAML lets other errors than its own out for these.
        "count: 2020-13-45",
        "count: 0x_",
        "count: !!bool perhaps",
        "count: !!timestamp soon",
        "count: !!int ten",
        "count: " + 5_000 * "1",
    ],
)
def test_what_is_no_yaml_is_refused(text: str) -> None:
    """Text that PyYAML cannot read is refused, whatever the library raises for it."""
    assert "not YAML: " in refusal(yaml, text)


@pytest.mark.parametrize(
    "text",
    ["", "{", "{'name': 'a'}", '{"name": "a"} x', "\ufeff{}", "[" * 100_000, "1" * 5_000],
)
def test_what_is_no_json_is_refused(text: str) -> None:
    """Text that is not JSON is refused, however deep or long it is."""
    assert "not JSON: " in refusal(json, text)


def test_bytes_that_are_no_text_are_refused() -> None:
    """JSON of bytes that are not UTF-8 is refused."""
    with pytest.raises(InputRefused, match=r"^settings.json: not JSON: "):
        from_json(b'{"name": "\xff"}', Document, "settings.json")


@given(st.text())
@example("name: a\n? {a: b}\n: c")
@example("=: =")
@example("<<: a")
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes a reader raise anything but InputRefused."""
    for read in (yaml, json):
        try:
            read(text)
        except InputRefused as refused:
            assert 1 == len(str(refused).splitlines())


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(
    lambda n: n != "refused"
)
documents = st.builds(
    Document,
    name=names,
    count=st.integers(0, 2**70),
    positive=st.integers(1, 2**40),
    port=st.integers(0, 65_535),
    seconds=st.floats(1e-9, 1e300),
    address=st.sampled_from(["a:1", "10.0.0.1:65535", "node-0.nodes.svc:7100"]),
    parts=st.lists(st.builds(Inner, key=st.integers(0, 2**64), share=st.floats(0, 1)), max_size=3).map(
        tuple
    ),
    notes=st.dictionaries(st.text(max_size=9), st.text(max_size=30), max_size=3),
)


@given(documents)
def test_documents_are_read_as_they_were_written(document: Document) -> None:
    """Writing and reading changes nothing: not names like `no` or `1e3`, keys, floats, or any text."""
    assert document == yaml(to_yaml(document))
    assert document == json(to_json(document))


def test_keys_are_read_as_hexadecimal_text() -> None:
    """A key is 16 hexadecimal digits; the end of the key space has 17."""
    document = yaml('name: a\nparts: [{key: "00000000000000ff"}, {key: "10000000000000000"}]')
    assert [255, 2**64] == [part.key for part in document.parts]
    assert "key: 00000000000000ff" in to_yaml(document).replace("'", "")
