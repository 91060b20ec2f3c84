"""Commands in numbers: a process of the real one takes half a second to start."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from unittest.mock import patch

from rangefinder.cli.main import main as command_main
from tests.kit.processes import rangefinder

Done = subprocess.CompletedProcess[str]


async def rangefinder_all(commands: Mapping[str, Sequence[object]]) -> dict[str, Done]:
    """Run commands to their ends, as many at a time as there are cores; results by name."""
    permits = asyncio.Semaphore(len(os.sched_getaffinity(0)))

    async def run(arguments: Sequence[object]) -> Done:
        async with permits:
            return await asyncio.to_thread(rangefinder, *arguments)

    done = await asyncio.gather(*(run(arguments) for arguments in commands.values()))
    return dict(zip(commands, done, strict=True))


def rangefinder_here(*arguments: object) -> Done:
    """Run the command in this process: all of it but the start of an interpreter."""
    command = ["rangefinder", *(str(each) for each in arguments)]
    # As the installed script is: else its name would be that of the module which runs the tests.
    as_script = patch.object(sys.modules["__main__"], "__package__", "")
    code: object = 0
    with (
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as err,
        patch.object(sys, "argv", command),
        as_script,
    ):
        try:
            command_main()
        except SystemExit as stop:
            code = stop.code or 0
    if isinstance(code, str):  # The interpreter would print it.
        err.write(f"{code}\n")
        code = 1
    assert isinstance(code, int)
    return Done(command, code, out.getvalue(), err.getvalue())


def require_refused(done: Done, *words: str) -> None:
    """A failure as a person wants it: an exit code and one line, with these words, no traceback."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("rangefinder: error: ")
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert done.stdout == ""
