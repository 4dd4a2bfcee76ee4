"""What the sub-commands of the hub call. Stages are imported when their command runs."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from autoneural.files import expand


def pull(args: argparse.Namespace) -> None:
    """Fetch a model; its folder on stdout, all else on stderr."""
    from autoneural.hub.download import pull

    say = partial(print, file=sys.stderr)
    print(pull(args.model, revision=args.revision, offline=args.offline, say=say))


def list_models(args: argparse.Namespace) -> None:
    """The models in the cache."""
    from autoneural.hub.cache import models, size_text

    found = models()
    if args.json:
        print(json.dumps([{"name": m.name, "bytes": m.size, "refs": list(m.refs)} for m in found]))
        return
    for model in found:
        print(f"{model.name}  {size_text(model.size)}  {', '.join(model.refs) or 'by revision'}")


def remove(args: argparse.Namespace) -> None:
    """Delete models from the cache."""
    from autoneural.hub.cache import remove, size_text

    for name in args.model:
        removal = remove(name)
        print(*removal.lines, f"{size_text(removal.freed)} freed", sep=", ")


def clean(args: argparse.Namespace) -> None:
    """Delete what nobody will ask for."""
    from autoneural.hub.cache import clean, size_text

    removal = clean(dry_run=args.dry_run)
    print(*removal.lines, f"{size_text(removal.freed)} freed", sep="\n")


def import_model(args: argparse.Namespace) -> None:
    """A folder of another library to a checkpoint."""
    from autoneural.hub.importers import import_folder

    recipe = import_folder(args.folder, expand(args.output))
    print(f"wrote {args.output} (licence: {recipe['licences']['weights']})")


def assemble(args: argparse.Namespace) -> None:
    """Two parts and a new connector to a checkpoint."""
    from autoneural.hub.assemble import assemble

    recipe = assemble(
        args.vision, args.language, expand(args.output), seed=args.seed, width=args.connector
    )
    print(f"wrote {args.output} (licences: {recipe['licences']['weights']})")
    print("its connector is new: train it before you ask about pictures")
