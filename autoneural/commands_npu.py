"""What the sub-commands of the NPU chain call. Stages are imported when their command runs."""

from __future__ import annotations

import argparse
import json


def doctor(args: argparse.Namespace) -> None:
    """What can run here, what runs where, and why not."""
    from rich.console import Console

    from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED, Bundle
    from autoneural.npu.doctor import examine, print_report

    report = examine(Bundle.load(args.bundle or EMBEDDED / DEFAULT_BUNDLE), args.chip)
    if args.json:
        print(json.dumps(report))
    else:
        print_report(report, Console())
