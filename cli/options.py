"""Options that more than one command takes, so that they mean the same everywhere."""

from __future__ import annotations

import click

from .params import StoreType

store_argument = click.argument("store", type=StoreType())
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
images_option = click.option(
    "--images",
    metavar="SOURCE",
    help="The images that were labelled: a folder, tar, Parquet, shards, a list, or a URL.",
)
