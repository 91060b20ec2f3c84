"""A port held for processes that share it: who may bind it meanwhile."""

import socket

import pytest

from rangefinder.errors import AddressInUse
from rangefinder.shared_port import held_port


def binds(address: str, *options: int) -> bool:
    """Whether a socket with these options gets to listen there."""
    host, port = address.rsplit(":", 1)
    with socket.socket() as stranger:
        for option in options:
            stranger.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            stranger.bind((host, int(port)))
            stranger.listen()
        except OSError:
            return False
    return True


def test_a_held_port_is_for_those_that_share() -> None:
    """Held, it is refused to whoever binds as usual and to a second holder, and free to those that
    share it; afterwards it is free. Nobody connects to the holder itself."""
    with held_port("127.0.0.1:0") as address:
        host, port = address.rsplit(":", 1)
        usual = [binds(address), binds(address, socket.SO_REUSEADDR)]
        sharing = binds(address, socket.SO_REUSEPORT)
        with pytest.raises(AddressInUse, match=address), held_port(address):
            pass
        with socket.socket() as caller:
            connected = caller.connect_ex((host, int(port)))
    after = binds(address)

    assert usual == [False, False]
    assert sharing
    assert connected != 0
    assert after


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEPORT,)])
def test_a_port_in_use_is_refused(options: tuple[int, ...]) -> None:
    """By a listener that shares its port, too: that would be two clusters at one port."""
    with socket.socket() as listener:
        for option in options:
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(AddressInUse, match=f"{address}: the port is in use"), held_port(address):
            pass


def test_a_port_of_closed_connections_is_free() -> None:
    """Connections that its last user closed do not keep a port from being held."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with socket.create_connection(listener.getsockname()) as caller:
            served, _ = listener.accept()
            served.close()  # First: this end waits for stray packets.
            assert caller.recv(1) == b""
    with held_port(address) as held:
        assert held == address
