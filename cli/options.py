"""Options that more than one command takes, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path

import click

store_argument = click.argument("store", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
images_option = click.option(
    "--images",
    metavar="SOURCE",
    help="The images that were labelled: a folder, tar, Parquet, shards, a list, or a URL.",
)
