"""The commands' page of the documentation, made from their own help.

python -m relabel_store.cli.reference > docs/reference/commands.md
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from .main import main

_HEAD = """# Commands

Made from `--help` by `make docs`; a test compares the two.

Exit status: 0 done; 1 the answer is no, or some images have no label; 2 wrong usage; 3 could not. stdout carries
the answer, `--json` one document with a schema in `schemas/`; progress and the log go to stderr.
"""


def render_page() -> str:
    """Return the page as Markdown."""
    group = main.make_context("relabel-store", [], resilient_parsing=True, terminal_width=100)
    sections = [_HEAD]
    sections += [
        f"## {context.command_path}\n\n```\n{context.command.get_help(context)}\n```\n"
        for context in _contexts(group)
    ]
    return "\n".join(sections)


def _contexts(group: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command below a group."""
    assert isinstance(group.command, click.Group)
    for name in group.command.list_commands(group):
        command = group.command.get_command(group, name)
        assert command is not None
        context = click.Context(
            command, parent=group, info_name=name, max_content_width=100, terminal_width=100
        )
        yield context
        if isinstance(command, click.Group):
            yield from _contexts(context)


if __name__ == "__main__":
    click.echo(render_page(), nl=False)
