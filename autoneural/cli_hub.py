"""The sub-commands about models of others, declared."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoneural import commands_hub
from autoneural.cli_arguments import command, natural, positive


def add_pull(verbs: argparse._SubParsersAction) -> None:
    text = "fetch a model from the hub: safetensors and JSON only, licence and size first"
    add = command(verbs, "pull", commands_hub.pull, text)
    add.add_argument("model", metavar="REPO|FOLDER", help="owner/name, or a folder to look at")
    add.add_argument("--revision", metavar="NAME", help="branch, tag or commit (default main)")
    add.add_argument("--offline", action="store_true", help="only what is in the cache already")


def add_cache(verbs: argparse._SubParsersAction) -> None:
    """list, rm and clean."""
    text = "the models in the cache of huggingface_hub (HF_HOME)"
    add = command(verbs, "list", commands_hub.list_models, text)
    add.add_argument("--json", action="store_true", help="print a JSON list")
    add = command(verbs, "rm", commands_hub.remove, "delete models from the cache")
    add.add_argument("model", nargs="+", metavar="REPO", help="owner/name")
    text = "delete unfinished downloads and replaced revisions from the cache"
    add = command(verbs, "clean", commands_hub.clean, text)
    add.add_argument("--dry-run", action="store_true", help="only say what would go")


def add_import(verbs: argparse._SubParsersAction) -> None:
    text = "turn a model of others (LFM2, MobileNetV5) into a checkpoint"
    add = command(verbs, "import", commands_hub.import_model, text)
    add.add_argument("folder", metavar="FOLDER|REPO", help="as on the hub, or pulled")
    add.add_argument("-o", "--output", type=Path, required=True, metavar="CHECKPOINT")


def add_assemble(verbs: argparse._SubParsersAction) -> None:
    text = "join a vision encoder and a language model with a new connector"
    add = command(verbs, "assemble", commands_hub.assemble, text)
    what = "folder as on the hub, pulled, or imported"
    add.add_argument("--vision", required=True, metavar="FOLDER|REPO", help=what)
    add.add_argument("--language", required=True, metavar="FOLDER|REPO", help=what)
    add.add_argument("-o", "--output", type=Path, required=True, metavar="CHECKPOINT")
    add.add_argument("--seed", type=natural, default=0, help="of the connector (default 0)")
    add.add_argument(
        "--connector", type=positive, default=2048, metavar="N", help="hidden width (default 2048)"
    )
