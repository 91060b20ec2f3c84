"""How channels and servers are set up: the same everywhere, with the reason of each setting."""

from collections.abc import Sequence

import grpc

ANSWER_BYTES_MAX = 4 << 20  # What gRPC clients accept by default.
REQUEST_BYTES_MAX = 16 << 20
INTERNAL_BYTES_MAX = 64 << 20  # Between our own processes.

Options = Sequence[tuple[str, int | str]]

_COMMON: Options = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A process that restarts is found again within a second or so, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # No wait, but the bound of an attempt to connect: a busy host may take its time to answer.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # Error details with a certificate exceed the default of 8 KiB.
    ("grpc.max_metadata_size", 32 << 10),
)


def client_options(answer_bytes_max: int) -> Options:
    """Options of a channel."""
    return (
        *_COMMON,
        ("grpc.max_receive_message_length", answer_bytes_max),
        ("grpc.max_send_message_length", INTERNAL_BYTES_MAX),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )


def server_options(
    request_bytes_max: int, answer_bytes_max: int, *, shares_port: bool = False
) -> Options:
    """Options of a server. Only those share a port that are told to (rangefinder/shared_port.py)."""
    return (
        *_COMMON,
        ("grpc.max_receive_message_length", request_bytes_max),
        ("grpc.max_send_message_length", answer_bytes_max),
        # No ping is one too many: keepalive, and those that gRPC's client measures its bandwidth with
        # and keeps sending when traffic stops, together made servers end streams a minute later.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_concurrent_streams", 10_000),
        ("grpc.so_reuseport", int(shares_port)),
    )


def open_channel(address: str, answer_bytes_max: int = ANSWER_BYTES_MAX) -> grpc.aio.Channel:
    """A channel in the clear to host:port."""
    return grpc.aio.insecure_channel(address, options=client_options(answer_bytes_max))
