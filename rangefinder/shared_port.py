"""A TCP port that processes of ours listen on together, and nobody else by accident.

    our processes     SO_REUSEPORT, listening    the kernel spreads new connections over them
    who started them  SO_REUSEPORT, bound only   gets no connection; keeps the port from strangers

What binds the port in the ordinary way is refused, and so is a second cluster. Only a process of the
same user that sets SO_REUSEPORT without asking first could join: no system call prevents that.

A connection that is made in the moment in which one of the listeners closes may be reset, unless the
system's net.ipv4.tcp_migrate_req is 1: its caller connects again.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from rangefinder.errors import AddressInUse


@contextmanager
def held_port(listen: str) -> Iterator[str]:
    """Hold host:port until the block ends; gives it with its number where that was 0.

    Raises AddressInUse where anybody listens there or holds it.
    """
    host, port = listen.rsplit(":", 1)
    with socket.socket() as holder:
        # Connections that an earlier process closed do not count; whoever listens does.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind((host, int(port)))
        except OSError:
            raise AddressInUse(f"{listen}: the port is in use, or is not this machine's") from None
        # Set once it is bound: binding was exclusive, sharing it is not.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield f"{host}:{holder.getsockname()[1]}"
