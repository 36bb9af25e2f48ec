"""The example of a dataset does what it says, from its clips to its exported assets; here with a few clips."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.helpers.places import ROOT

SCRIPT = ROOT / "examples" / "dataset" / "run.sh"
CLIPS = 4  # two good ones, and the two bad ones


def shims(folder: Path) -> Path:
    """`ss4d` and `python` as in the environment that a user has made."""
    folder.mkdir()
    for name, words in (("ss4d", f"{sys.executable} -m ss4d.cli.entry"), ("python", sys.executable)):
        (folder / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def table(said: str) -> dict[str, list[str]]:
    """The numbers in the first table that was printed, by what stands before them."""
    return {row.split()[0]: row.split()[1:] for row in said.splitlines() if re.match(r" *[a-z_]+ +\d", row)}


@pytest.mark.timeout(1500)  # thirteen commands, each of which takes seconds to start; more where others work, too
def test_the_script(tmp_path: Path) -> None:
    path = os.pathsep.join([str(shims(tmp_path / "bin")), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    work = tmp_path / "work"
    ended = subprocess.run(
        [SCRIPT, work, str(CLIPS)], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said

    steps = dict(zip(range(12), re.split(r"^== ", ended.stdout, flags=re.MULTILINE), strict=True))
    plans = {number: table(steps[number]) for number in (3, 7, 8)}
    assert all(row[:3] == [str(CLIPS), "0", "0"] for row in plans[3].values())
    changed = {"slat", "decoding", "export"}
    runs = {number: {stage: int(row[0]) for stage, row in plan.items()} for number, plan in plans.items()}
    assert runs[7] == {stage: CLIPS if stage in changed else 0 for stage in plans[3]}
    assert runs[8] == {"segmentation": 0, "decoding": CLIPS, "export": CLIPS}

    assert "2 failed: 2 by bad input." in said
    assert re.search(r"input +InputError +- +1 +bad_missing", steps[5]), steps[5]
    assert re.search(r"is damaged: \d frames could be read before it broke off", steps[5])
    assert "0 added, 1 changed, 0 vanished, 0 that cannot be read" in said
    assert "Cleared 1 of 1 failures, of 1 clips." in said
    assert f"{CLIPS} of {CLIPS} clips are finished, 2 of them by this run" in said
    assert f"{CLIPS} of {CLIPS} clips are finished, {CLIPS} of them by this run" in said

    entries = parquet.read_table(work / "objects" / "catalog.parquet").to_pylist()
    assert [entry["state"] for entry in entries] == ["done"] * CLIPS * len(plans[3])
    assert "Gaussians each" in steps[9]
    page = (work / "report.html").read_text()
    assert len(page) > 10_000
    assert "<title>" in page
    assets = sorted((work / "assets").iterdir())
    assert [asset.name for asset in assets] == sorted({entry["id"] for entry in entries})
    for asset in assets:
        assert len(list(asset.glob("frames/*.ply"))) == 6
        assert json.loads((asset / "asset.json").read_text())["overrides"] == ["slat.sampler.steps=12"]


def test_it_leaves_what_is_there_alone(tmp_path: Path) -> None:
    ended = subprocess.run([SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, f"{tmp_path} exists: give a folder that does not\n")
    assert list(tmp_path.iterdir()) == []
