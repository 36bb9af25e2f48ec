"""Compare two reports of `ss4d bench --out`: `python -m tests.benchmarks.compare OLD NEW`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SAME = ("device", "threads", "size", "frames", "voxels", "precision")  # facts that make reports comparable


def compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each fact that differs, then one for each row: seconds, and how many times faster the new is."""
    lines = [
        f"{fact} differs: {old['facts'][fact]} and {new['facts'][fact]}"
        for fact in SAME
        if old["facts"][fact] != new["facts"][fact]
    ]
    before, after = ({_name(row): row for row in report["rows"]} for report in (old, new))
    for name, row in before.items():
        if name not in after:
            lines.append(f"{name:<48} only in the old")
            continue
        seconds = after[name]["seconds"]
        lines.append(f"{name:<48} {row['seconds']:10.4f} {seconds:10.4f} {row['seconds'] / seconds:6.2f}")
    lines += [f"{name:<48} only in the new" for name in after if name not in before]
    return lines


def _name(row: Mapping[str, Any]) -> str:
    return "/".join(part for part in (row["stage"], row["work"], row["layers"]) if part)


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("usage: make bench-compare OLD=FILE NEW=FILE, both from ss4d bench --out FILE")
    old, new = (json.loads(Path(name).read_text()) for name in sys.argv[1:])
    print("\n".join(compared(old, new)))


if __name__ == "__main__":
    main()
