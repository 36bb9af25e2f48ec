"""How long `ss4d gc` takes with many runs and artifacts, of which some are to be deleted.

`python -m tests.benchmarks.housekeeping --runs 5000 --artifacts 100000` makes a store in the temporary folder, which
takes longer than the command itself.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ss4d.pipelines.run_record import RECORD
from ss4d.pipelines.store.housekeeping import collect
from ss4d.pipelines.store_notes import note_run
from ss4d.stages.types import silent
from ss4d.storage.artifact import root_bytes
from ss4d.storage.place import ROOT
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore

STAGES = ("segmentation", "conditioning", "sparse_structure", "slat", "decoding", "export")
FILES = 3  # of an artifact, besides its description


def recipe(stage: str, number: int) -> dict[str, Any]:
    """One that gives a key of its own."""
    return {"implementation": "any", "revision": 1, "parameters": {stage: {"number": number}}, "inputs": {}}


def make_artifacts(store: Path, count: int) -> list[ArtifactRef]:
    """Folders as artifacts have them; the store itself would wait for the disk after each."""
    refs = []
    for number in range(count):
        stage = STAGES[number % len(STAGES)]
        ref = ArtifactRef(stage, artifact_key(recipe(stage, number)))
        folder = store / stage / ref.key[:2] / f"{ref.key}.zarr"
        (folder / "feats").mkdir(parents=True)
        for file in range(FILES):
            (folder / "feats" / f"c.{file}.0").write_bytes(b"0123456789")
        attributes = {"complete": True, "schema": 2, "stage": stage, "key": ref.key, "arrays": {}, "files": {}}
        (folder / ROOT).write_bytes(root_bytes(attributes))
        refs.append(ref)
    return refs


def make_runs(out: Path, count: int) -> None:
    """Runs of six stages each, with the notes that they leave."""
    store = ArtifactStore(out / "store")
    for number in range(count):
        recipes = {stage: recipe(stage, number * len(STAGES) + place) for place, stage in enumerate(STAGES)}
        stages = {s: {"key": artifact_key(known), "state": "computed", "recipe": known} for s, known in recipes.items()}
        folder = out / "runs" / f"run{number}"
        folder.mkdir(parents=True)
        record = {
            "schema": 1,
            "name": folder.name,
            "state": "complete",
            "input": {"path": "clip.mp4", "sha256": "0" * 64},
            "seed": 1,
            "device": "cpu",
            "engine": "direct",
            "model": {"location": "bundled:tiny"},
            "config": {},
            "versions": {},
            "machine": {},
            "started": "2026-01-01T00:00:00+00:00",
            "stages": stages,
        }
        (folder / RECORD).write_text(json.dumps(record))
        note_run(store, folder, {stage: known["key"] for stage, known in stages.items()})


def main() -> None:
    """Makes the store, and prints the seconds of two calls of `collect`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--artifacts", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        make_artifacts(out / "store", given.artifacts)
        make_runs(out, given.runs)
        for dry_run in (True, False):
            begun, cpu = time.monotonic(), time.process_time()
            sorting = collect(str(out / "store"), min_age=0, dry_run=dry_run, progress=silent)
            seconds = f"{time.monotonic() - begun:.1f} s, {time.process_time() - cpu:.1f} s of the CPU"
            told = "a dry run" if dry_run else "deletes"
            print(f"{given.runs} runs, {given.artifacts} artifacts, {len(sorting.unused)} unused, {told}: {seconds}")


if __name__ == "__main__":
    main()
