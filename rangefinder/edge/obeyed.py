"""A field that is set is obeyed or refused, never ignored."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from rangefinder.errors import NotSupported

Obeyed = frozenset[str]


def refuse_unsupported(request: Message, obeyed: Obeyed) -> None:
    """Raise NotSupported where a field is set that is not obeyed, or that this version lacks."""
    fields = request.ListFields()
    for field, _ in fields:
        if field.name not in obeyed:
            name = f"{request.DESCRIPTOR.name}.{field.name}"
            raise NotSupported(f"{name} is not supported by this server: leave it unset")
    _refuse_unknown(request, fields)


def _refuse_unknown(message: Message, fields: Sequence[tuple[FieldDescriptor, Any]]) -> None:
    """Look at the message and at every message in it: what a newer caller adds may stand anywhere."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise NotSupported(
            f"{message.DESCRIPTOR.name}: field number {unknown[0].field_number} is newer than this"
            " server: leave it unset, or upgrade the server"
        )
    for field, value in fields:
        if field.message_type is not None:
            for part in _parts(field, value):
                _refuse_unknown(part, part.ListFields())


def _parts(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    """The messages that a field of messages holds: one, several, or the values of a map."""
    if isinstance(value, Message):
        return (value,)
    kind = field.message_type
    if kind is None or not kind.GetOptions().map_entry:
        return cast(Iterable[Message], value)
    is_of_messages = kind.fields_by_name["value"].message_type is not None
    return cast(Iterable[Message], value.values()) if is_of_messages else ()
