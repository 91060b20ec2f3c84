"""The client for programs that do not use asyncio: the same calls, each of which blocks.

    with rangefinder.sync.Client("10.0.0.1:7000", "10.0.0.2:7000") as client:
        answer = client.retrieve(embedding, item_count=20)

Any thread may call. All clients of a process run on one event loop in a thread of its own: gRPC for
asyncio takes no more than one loop in a process, so do not use this beside `rangefinder.Client`.
"""

import asyncio
import atexit
import concurrent.futures
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from rangefinder import client as asynchronous
from rangefinder.errors import RangefinderError

P = ParamSpec("P")
T = TypeVar("T")

_READ_AHEAD = 256


class _LoopThread:
    """The event loop of this process's clients; it runs from the first one on until the end."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work on the loop. Who is interrupted waits no more."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Nothing is left to cancel unless this thread was interrupted.
            raise

    def start(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        with self._starting:
            if self._loop is None:
                self._loop = self._started()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _started(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="rangefinder-client", daemon=True)
        thread.start()
        atexit.register(self._stop, loop, thread)
        return loop

    def _stop(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


_loop_thread = _LoopThread()


class _Asks(Protocol):
    """What has an asynchronous twin."""

    @property
    def twin(self) -> Any: ...


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Asks, P], T]:
    """The method of the twin, called from any thread; its documentation holds here, too."""

    @functools.wraps(method)
    def call(self: _Asks, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _loop_thread.run(method(self.twin, *args, **kwargs))

    return call


def _starting(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[_Asks, P], concurrent.futures.Future[T]]":
    """The method of the twin, begun: the caller waits for the future when it likes."""

    @functools.wraps(method)
    def start(self: _Asks, /, *args: P.args, **kwargs: P.kwargs) -> "concurrent.futures.Future[T]":
        return _loop_thread.start(method(self.twin, *args, **kwargs))

    return start


def _iterating(
    method: Callable[Concatenate[Any, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[_Asks, P], Iterator[T]]:
    """The iterator of the twin, read ahead by a few: a turn of the loop for each would cost more."""

    @functools.wraps(method)
    def iterate(self: _Asks, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        values = method(self.twin, *args, **kwargs)
        try:
            while True:
                some, error = _loop_thread.run(_next_of(values))
                yield from some
                if error is not None:
                    raise error
                if not some:
                    return
        finally:
            _loop_thread.run(values.aclose())

    return iterate


async def _next_of(values: AsyncGenerator[T, None]) -> tuple[list[T], RangefinderError | None]:
    """The next values, none at the end; and what ended them."""
    some: list[T] = []
    try:
        async for value in values:
            some.append(value)
            if len(some) == _READ_AHEAD:
                break
    except RangefinderError as error:
        return some, error
    return some, None


class RetrieveStream:
    """See rangefinder.client.RetrieveStream. `submit` begins a batch, so that many are in flight."""

    def __init__(self, twin: asynchronous.RetrieveStream) -> None:
        self.twin = twin

    retrieve_batch = _blocking(asynchronous.RetrieveStream.retrieve_batch)
    submit = _starting(asynchronous.RetrieveStream.retrieve_batch)


class Client:
    """See rangefinder.Client. Use it as a context manager, or call close()."""

    def __init__(self, *addresses: str, deadline_s: float = 0.2) -> None:
        self.twin = asynchronous.Client(*addresses, deadline_s=deadline_s)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    close = _blocking(asynchronous.Client.close)
    recommend = _blocking(asynchronous.Client.recommend)
    retrieve = _blocking(asynchronous.Client.retrieve)
    retrieve_batch = _blocking(asynchronous.Client.retrieve_batch)
    get_items = _blocking(asynchronous.Client.get_items)
    cluster_map = _blocking(asynchronous.Client.cluster_map)
    cluster_status = _blocking(asynchronous.Client.cluster_status)
    scan_items = _iterating(asynchronous.Client.scan_items)

    @contextmanager
    def stream(self) -> Iterator[RetrieveStream]:
        """See rangefinder.Client.stream."""
        entered = self.twin.stream()
        stream = _loop_thread.run(entered.__aenter__())
        try:
            yield RetrieveStream(stream)
        finally:
            _loop_thread.run(entered.__aexit__(None, None, None))
