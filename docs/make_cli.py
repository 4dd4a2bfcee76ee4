"""Writes docs/cli.md from the program's own --help: `make docs`. A test fails when it is stale."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from autoneural.cli import build_parser

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# The command line

Printed by `make docs` from `--help`; change `autoneural/cli.py`, not this page.
Exit codes: 0 done, 1 `verify` found something outside its threshold, 2 bad input (one line,
`autoneural: error: ...`), 3 stopped before the end (the same command goes on), 130 interrupted, 141
the reader of the output went away.
"""


def page() -> str:
    """The whole page as Markdown."""
    os.environ["COLUMNS"] = "88"
    sections = [f"## {p.prog}\n\n```\n{p.format_help().rstrip()}\n```\n" for p in parsers()]
    return "\n".join([HEAD, *sections])


def parsers() -> Iterator[argparse.ArgumentParser]:
    """The program's parser and those of its commands, in the order of the help."""
    yield from _walk(build_parser())


def _walk(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    seen = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                if child.prog not in seen:
                    seen.add(child.prog)
                    yield from _walk(child)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
