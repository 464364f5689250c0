"""The command group, and what becomes of errors."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import NoReturn

import click

from relabel_store.errors import OptionError, RelabelStoreError
from relabel_store.version import __version__

from .printable import printable

EXIT_NO = 1  # the answer is no: an invalid store, images without a label
EXIT_COULD_NOT = 3

_COMMANDS = {
    "build": "cmd_build",
    "cache": "cmd_cache",
    "convert": "cmd_convert",
    "demo": "cmd_demo",
    "inspect": "cmd_inspect",
    "repair": "cmd_repair",
    "status": "cmd_status",
    "teachers": "cmd_teachers",
    "validate": "cmd_validate",
}


class _LazyGroup(click.Group):
    """Imports a command when it is called: ``--help`` and ``inspect`` load no torch."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f".{_COMMANDS[cmd_name]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except OptionError as error:
            raise click.UsageError(str(error)) from error
        except RelabelStoreError as error:
            _fail("\n".join([str(error), *getattr(error, "__notes__", ())]))
        except OSError as error:
            _fail(f"{error.filename!r}: {error.strerror}" if error.filename else str(error))
        except KeyboardInterrupt:
            _fail("interrupted; finished parts stay, run the same command again to go on")


def _fail(message: str) -> NoReturn:
    click.echo(printable(f"Error: {message}"), err=True)
    sys.exit(EXIT_COULD_NOT)


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="relabel-store")
@click.option("-v", "--verbose", count=True, help="Log more to stderr; twice for everything.")
@click.option("-q", "--quiet", is_flag=True, help="Log errors only, and show no progress.")
@click.pass_context
def main(ctx: click.Context, *, verbose: int, quiet: bool) -> None:
    """Dense teacher labels for image classifiers: build a store of label maps, and look at it.

    Exit status: 0 done; 1 the answer is no, or some images have no label; 2 wrong usage; 3 could not.
    """
    ctx.obj = quiet
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    handler.setLevel(level)
    logger = logging.getLogger("relabel_store")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if level > logging.DEBUG else logging.DEBUG)
