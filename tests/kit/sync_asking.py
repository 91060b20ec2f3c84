"""A program without asyncio that asks a cluster: `python -m tests.kit.sync_asking ADDRESS QUERIES`.

It prints what it saw as JSON. A process of its own, because gRPC takes one event loop in a process.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

from rangefinder.errors import RangefinderError
from rangefinder.sync import Client, RetrieveStream

THREAD_COUNT, ROUND_COUNT = 8, 5
DEADLINE_S = 10.0


def ids(found: Any) -> list[Any]:
    return list(np.asarray(found.ids).tolist())


def ask_from_threads(client: Client, queries: Any) -> list[list[Any]]:
    """Every query from every thread, some times over: one list for each thread and round."""

    def ask(_: int) -> list[Any]:
        return [ids(client.retrieve(query, 5, exact=True)) for query in queries]

    with ThreadPoolExecutor(THREAD_COUNT) as pool:
        return list(pool.map(ask, range(THREAD_COUNT * ROUND_COUNT)))


def ask_stream(stream: RetrieveStream, queries: Any) -> list[list[Any]]:
    """Every query as a batch, all begun before the first is waited for; then one that blocks."""
    begun = [stream.submit(queries[place : place + 1], 5, exact=True) for place in range(len(queries))]
    return [*(ids(each.result()) for each in begun), ids(stream.retrieve_batch(queries[:1], 5))]


def reason_of(client: Client) -> str:
    try:
        client.retrieve(np.zeros(1), 5)
    except RangefinderError as error:
        return error.reason
    return "none"


def main(address: str, path: str) -> None:
    queries = np.load(path)
    with Client(address, deadline_s=DEADLINE_S) as client:
        by_thread = ask_from_threads(client, queries)
        with client.stream() as stream:
            by_stream = ask_stream(stream, queries)
        saw = {
            "by_thread": by_thread,
            "by_stream": by_stream,
            "scanned": len({item.id for item in islice(client.scan_items(), 600)}),
            "all": sum(1 for _ in client.scan_items()),
            "reason": reason_of(client),
            "releases": [each.name for each in client.cluster_map().releases],
            "threads": [each.name for each in threading.enumerate()],
        }
    print(json.dumps(saw))


if __name__ == "__main__":
    main(*sys.argv[1:])
