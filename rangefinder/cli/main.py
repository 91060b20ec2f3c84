"""`rangefinder`: the commands, and how they fail."""

import sys

import click

from rangefinder.errors import RangefinderError
from rangefinder.version import __version__


class _Commands(click.Group):
    """Commands by name, each imported when it runs, so that help is quick."""

    _modules = {
        "bench": "rangefinder.cli.bench.command",
        "build": "rangefinder.cli.build",
        "eval": "rangefinder.cli.eval",
        "items": "rangefinder.cli.items",
        "map": "rangefinder.cli.map",
        "recommend": "rangefinder.cli.recommend",
        "retrieve": "rangefinder.cli.retrieve",
        "status": "rangefinder.cli.status",
        "train": "rangefinder.cli.train",
        "up": "rangefinder.cli.up",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self._modules.get(cmd_name)
        if module is None:
            return None
        command: click.Command = __import__(module, fromlist=["command"]).command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rangefinder")
def cli() -> None:
    """Serve recommendations from a cluster whose answers certify what they rest on.

    \b
    From a file of embeddings to an answer:
      rangefinder build --embeddings X.npy --metric l2 --shards 4 --out release
      rangefinder up --release release --data-dir data
      rangefinder retrieve --like 42

    \b
    From who had what to recommendations:
      rangefinder train --interactions ratings.dat --titles movies.dat --out release
      rangefinder up --release release --data-dir data
      rangefinder recommend --user 7
    """


def main() -> None:
    """Run a command. An expected failure is one line on standard error and an exit code."""
    try:
        # What a command returns is nothing, or the exit code that it stopped with.
        sys.exit(cli(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit("rangefinder: interrupted")
    except RangefinderError as error:
        sys.exit(f"rangefinder: error: {error.message} [{error.reason}]")
    except BrokenPipeError:
        sys.exit(1)  # Whoever read the output has gone.


if __name__ == "__main__":
    main()
