"""What `show` calls: facts of a checkpoint or bundle, or what it would take in memory."""

from __future__ import annotations

import argparse
import json
from typing import Any

from autoneural.errors import UserError


def show(args: argparse.Namespace) -> None:
    """Facts of a checkpoint or bundle, or the plan of its memory."""
    if args.memory:
        _memory(args)
        return
    for flag in ("chip", "context", "image_size", "precision"):
        if getattr(args, flag) is not None:
            raise UserError(f"--{flag.replace('_', '-')}: goes with --memory")
    from autoneural.show import facts

    found = facts(args.path)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    # The whole recipe is long and nested: --json has it.
    found["recipe"] = {k: v for k, v in found.get("recipe", {}).items() if isinstance(v, str | int)}
    for key, value in found.items():
        lines = [f"{k}: {_plain(v)}" for k, v in value.items()] if isinstance(value, dict) else None
        if lines:
            print(f"{key}:")
            print("\n".join(f"  {line}" for line in lines))
        elif lines is None:
            print(f"{key}: {_plain(value)}")


def _memory(args: argparse.Namespace) -> None:
    from rich.console import Console

    from autoneural.bench.memory_plan import plan_of, print_memory
    from autoneural.target.chips import DEFAULT_CHIP, find_chip

    plan = plan_of(
        args.path,
        find_chip(args.chip or DEFAULT_CHIP),
        precision=args.precision,
        context=args.context,
        image_sizes=tuple(args.image_size or ()),
    )
    if args.json:
        print(json.dumps(plan.to_dict(), ensure_ascii=False))
    else:
        print_memory(plan, Console())


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return " ".join(str(v) for v in value) if isinstance(value, list | tuple) else str(value)
