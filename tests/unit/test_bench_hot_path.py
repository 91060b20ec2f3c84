"""Samples of stacks, by the function that they count for."""

from benchmarks.hot_path import by_function

LOOP = "<module> (router/__main__.py:22);run (rangefinder/process.py:61);Runner.run (runners.py:118)"
STACKS = f"""{LOOP} 7
{LOOP};Service._unary.<locals>.answer (rangefinder/edge/service.py:171);take (numpy/core.py:3) 2
{LOOP};Service._unary.<locals>.answer (rangefinder/edge/service.py:175) 3
{LOOP};Frames.data_received (rangefinder/edge/frames.py:9);Gatherer._send (router/gatherer.py:5) 4
Thread._bootstrap (threading.py:1002);Thread.run (threading.py:982) 5
"""


def test_a_sample_counts_for_the_innermost_function_of_ours() -> None:
    """Whatever the line, and whatever other code it has called."""
    assert {
        "event loop and grpc.aio": 7,
        "gRPC's thread, and others": 5,
        "Service._unary.answer (rangefinder/edge/service.py)": 5,
        "Gatherer._send (router/gatherer.py)": 4,
    } == by_function(STACKS)
