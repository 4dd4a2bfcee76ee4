"""Compares what qnn-net-run wrote on a device with the golden outputs of this kit.

    python3 golden/check.py OUT [--min-sqnr DB] [--max-lsb N]

OUT is the folder that golden/run.sh wrote: one folder per step, named as below golden/. Needs
nothing but Python 3.8: it is copied as it is from autoneural/npu/kit_check.py. Per output it
prints the largest difference in integers (LSB) and the SQNR in dB against `expected`, the QDQ
graph on a CPU, and the same of the HTP emulator where the kit holds it. An output passes when its
SQNR is at least that of the emulator minus 6 dB (30 dB where there is no emulator), or --min-sqnr,
and its difference at most --max-lsb. Exit code: 0 all pass, 1 some do not, 2 nothing to compare.
"""

from __future__ import annotations

import argparse
import array
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MARGIN_DB = 6.0
DEFAULT_DB = 30.0
_TYPES = {"uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "int32": "i", "float32": "f"}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Compare device outputs with golden ones.")
    parser.add_argument("out", type=Path, help="what golden/run.sh wrote")
    parser.add_argument("--min-sqnr", type=float, help="dB, instead of the emulator's minus 6")
    parser.add_argument("--max-lsb", type=int, help="largest difference allowed, in integers")
    parser.add_argument("--golden", type=Path, default=Path(__file__).resolve().parent)
    args = parser.parse_args(argv)
    golden = json.loads((args.golden / "golden.json").read_text(encoding="utf-8"))
    compared = failed = missing = 0
    print(f"{'step':22} {'output':28} {'max LSB':>8} {'SQNR dB':>8} {'emulator':>8}")
    for step in golden["steps"]:
        for output in step["outputs"]:
            file = find_output(args.out / step["name"], output["name"])
            if file is None:
                missing += 1
                print(f"{step['name']:22} {output['name']:28} missing")
                continue
            expected = args.golden / step["name"] / "expected" / f"{output['name']}.raw"
            lsb, decibels = distance(expected, file, output)
            least = limit_db(output, args.min_sqnr)
            wrong = decibels < least or (args.max_lsb is not None and lsb > args.max_lsb)
            compared, failed = compared + 1, failed + wrong
            row = f"{step['name']:22} {output['name']:28} {lsb:8} {decibels:8.2f}"
            print(f"{row} {emulator_db(output):>8}{'  FAIL' if wrong else ''}")
    print(f"{compared} compared, {failed} failed, {missing} missing")
    return 2 if not compared else int(failed + missing > 0)


def find_output(folder: Path, name: str) -> Path | None:
    """The file of an output below one step's folder; the tools write names in several ways."""
    plain = re.sub(r"\W+", "_", name)
    stems = [f"{n}{end}" for n in (name, plain) for end in ("_native", "")]
    files = sorted(path for path in folder.rglob("*.raw") if path.is_file())
    for stem in stems:
        for path in files:
            if path.name == f"{stem}.raw":
                return path
    return None


def limit_db(output: Mapping[str, Any], least: float | None) -> float:
    """The SQNR that an output must reach."""
    if least is not None:
        return least
    known = output.get("emulator")
    if not known or known["sqnr_db"] is None:
        return DEFAULT_DB
    return known["sqnr_db"] - MARGIN_DB


def emulator_db(output: Mapping[str, Any]) -> str:
    """What the emulator reached, as text."""
    known = output.get("emulator")
    if not known:
        return "-"
    return "equal" if known["sqnr_db"] is None else f"{known['sqnr_db']:.2f}"


def distance(expected: Path, found: Path, output: Mapping[str, Any]) -> tuple[int, float]:
    """(largest difference, SQNR in dB) over the rows that count; infinite when equal."""
    zero = output["zero_point"]
    a, b = read(expected, output), read(found, output)
    lsb = signal = noise = 0
    for start, end in spans(output):
        for i in range(start, end):
            error = abs(a[i] - b[i])
            lsb = max(lsb, error)
            signal += (a[i] - zero) ** 2
            noise += error**2
    if noise == 0:
        return lsb, math.inf
    return lsb, 10 * math.log10(signal / noise) if signal else -99.0


def spans(output: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Index ranges of the rows that count: the first `rows` along `axis`."""
    shape, axis, rows = output["shape"], output["axis"], output["rows"]
    inner = math.prod(shape[axis + 1 :])
    block = shape[axis] * inner
    for start in range(0, math.prod(shape), block):
        yield start, start + rows * inner


def read(path: Path, output: Mapping[str, Any]) -> array.array[int]:
    """The elements of a raw file. SystemExit where its size is not that of the output."""
    values = array.array(_TYPES[output["dtype"]])
    wanted = math.prod(output["shape"]) * values.itemsize
    data = path.read_bytes()
    if len(data) != wanted:
        raise SystemExit(f"{path}: {len(data)} bytes, {wanted} expected ({output['dtype']})")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


if __name__ == "__main__":
    sys.exit(main())
