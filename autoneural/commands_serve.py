"""What `autoneural serve` calls."""

from __future__ import annotations

import argparse
import os

from autoneural.bundle import Bundle
from autoneural.commands import EMBEDDED_BUNDLE
from autoneural.errors import UserError
from autoneural.files import expand


def serve(args: argparse.Namespace) -> None:
    """Serve bundles until Ctrl-C."""
    from autoneural.serve.memory import GB
    from autoneural.serve.models import Placing
    from autoneural.serve.remote import parse_image_host
    from autoneural.serve.run import serve as run
    from autoneural.serve.safety import parse_address, require_key
    from autoneural.serve.settings import Settings

    address = parse_address(args.host)
    settings = Settings(
        api_keys=_keys(args),
        hosts=tuple(args.allow_host),
        media_path=None if args.media_path is None else expand(args.media_path),
        image_hosts=tuple(map(parse_image_host, args.allow_image_host)),
        max_queue=args.max_queue,
        keepalive=args.keepalive,
        memory_budget=None if args.memory_budget is None else round(args.memory_budget * GB),
        timeout=args.timeout,
        drain=args.drain,
        speculate=args.speculate,
    )
    # Before anything is loaded: these take no time to find out.
    require_key(address[0], settings.api_keys)
    if settings.media_path is not None and not settings.media_path.is_dir():
        raise UserError(f"--media-path {settings.media_path}: no such folder")
    bundles = [Bundle.load(name) for name in args.bundles or [EMBEDDED_BUNDLE]]
    if args.image_size is not None:
        bundles = [bundle.at_size(args.image_size) for bundle in bundles]
    placing = Placing(
        target=args.target,
        device=args.device or ("npu" if args.require_npu else "cpu"),
        chip=args.chip,
        require_npu=args.require_npu,
        threads=args.threads or None,
        exact=args.exact,
    )
    run(bundles, address, settings, placing, verbose=args.verbose)


def _keys(args: argparse.Namespace) -> tuple[str, ...]:
    """Those of the command line and of the file; without either, that of the environment."""
    from autoneural.serve.safety import KEY_VARIABLE, read_keys

    given = [*args.api_key, *(read_keys(expand(args.api_key_file)) if args.api_key_file else ())]
    key = os.environ.get(KEY_VARIABLE)
    return tuple(dict.fromkeys(given or ([key] if key else [])))
