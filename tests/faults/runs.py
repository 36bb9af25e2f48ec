"""Runs of stages that compute nothing, with calls that fail; and what must be there afterwards."""

import json
import os
import pickle
import re
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import obstore
from obstore.store import from_url

from ss4d.pipelines import engines
from ss4d.pipelines.errors import explain
from ss4d.pipelines.run import RunOptions, run_clip
from tests.conftest import Silent, draw_frames, save_frames
from tests.faults.injection import Fault, Faults
from tests.helpers.forked import DEFECT, forked
from tests.helpers.noop_stages import METHODS

EXPLAINED = 1
SECONDS = 120.0
COSTS = re.compile(rb'"(seconds|peak_memory|peak_device_memory|digest|created|started|finished|pid|host)": [^,\n}]*')


@dataclass(frozen=True)
class Disturbed:
    """How a run with a fault ended.

    Attributes:
        sites: of each call that it made which such a fault may meet, if none failed: equal for calls that the same
            lines of the program led to.
        stopped: whether it ended in a sentence.
        problem: what is wrong with how it ended or with what it and the next run left; None if nothing is.
    """

    sites: list[int]
    stopped: bool
    problem: str | None


class Bench:
    """A clip, an undisturbed run of it, and fresh folders for disturbed ones.

    Args:
        root: a new folder.
        new_store: gives the URL of a new prefix in an object store; None for stores in folders.
    """

    def __init__(self, root: Path, new_store: Callable[[], str] | None = None) -> None:
        self._root, self._new_store = root, new_store
        self._output, self._told = root / "output", root / "told"
        clip = save_frames(root / "clip", draw_frames(1, 8))
        self._options = RunOptions(source=clip, out=root, overrides=METHODS, device="cpu", engine="direct", name="clip")
        self._cache = root / "cache"
        options = self._fresh()
        if self._run(options, None) != 0:
            raise RuntimeError(self._output.read_text())
        self._whole = self._content(options)

    def _fresh(self) -> RunOptions:
        """The run into a new folder and store."""
        for folder in (self._root / "out", self._cache):
            shutil.rmtree(folder, ignore_errors=True)
        store = None if self._new_store is None else self._new_store()
        return replace(self._options, out=self._root / "out", store=store)

    def disturbed(self, fault: Fault, first: int, *, lasting: bool) -> Disturbed:
        """A run with a fault, and the next one without: `first` is the number of the call that fails, 0 for none."""
        options = self._fresh()
        faults = Faults([self._root / "out", self._cache], fault, first, lasting)
        code = self._run(options, faults)
        sites: list[int] = json.loads(self._told.read_text() or "[]")
        printed = self._output.read_text(errors="replace")
        if code not in (0, EXPLAINED):
            return Disturbed(sites, code != 0, f"ended with {code}, not in a sentence:\n{printed[-2000:]}")
        if code and (first == 0 or fault == "short"):
            return Disturbed(sites, code != 0, f"ended with {code} without an error:\n{printed[-2000:]}")
        if loose := {name for name, content in self._visible(options).items() if self._whole.get(name) != content}:
            return Disturbed(sites, code != 0, f"can be seen, and is not as in an undisturbed run: {sorted(loose)[:3]}")
        if self._run(options, None) != 0:
            return Disturbed(
                sites, code != 0, f"the next run failed:\n{self._output.read_text(errors='replace')[-2000:]}"
            )
        found = self._content(options)
        other = {name for name in found.keys() | self._whole.keys() if found.get(name) != self._whole.get(name)}
        return Disturbed(sites, code != 0, f"the next run left other files: {sorted(other)[:5]}" if other else None)

    def _run(self, options: RunOptions, faults: Faults | None) -> int:
        self._told.write_text("")
        return forked(lambda: _run(options, faults, self._cache, self._told), self._output, SECONDS)[0]

    def _content(self, options: RunOptions) -> dict[str, bytes]:
        """All files of a finished run, without what it cost; in an object store, without the names of attempts."""
        record = json.loads((options.out / "runs/clip/run.json").read_bytes())
        states = json.dumps({"state": record["state"], "keys": {k: v["key"] for k, v in record["stages"].items()}})
        results = _files(options.out / "runs/clip", "runs/", lambda name: not name.endswith("run.json"))
        return {"record": states.encode(), **results, **self._visible(options, every=True)}

    def _visible(self, options: RunOptions, *, every: bool = False) -> dict[str, bytes]:
        """The files of artifacts that can be seen; with `every`, whatever else lies in the store."""
        if options.store is not None:  # a process that has asked an object store has threads that a fork would lose
            store = options.store
            forked(lambda: self._told.write_bytes(pickle.dumps(_objects(store))) and 0, self._output, SECONDS)
            found: dict[str, bytes] = pickle.loads(self._told.read_bytes())
            return found
        return _files(options.out / "store", "", lambda name: every or not name.startswith("."))


def _files(folder: Path, prefix: str, chosen: Callable[[str], bool]) -> dict[str, bytes]:
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        prefix + name: COSTS.sub(b"", path.read_bytes())
        for name, path in paths.items()
        if chosen(name) and not name.startswith(".notes")
    }


def _objects(url: str) -> dict[str, bytes]:
    """What pointers lead to, by the pointer's name."""
    objects = from_url(url, client_options={"allow_http": True})
    names = [meta["path"] for batch in obstore.list(objects) for meta in batch]
    found = {}
    for name in names:
        if not name.startswith("."):
            attempt = json.loads(bytes(obstore.get(objects, name).bytes()))["artifact"]
            for part in (part for part in names if part.startswith(f"{attempt}/")):
                content = COSTS.sub(b"", bytes(obstore.get(objects, part).bytes()))
                found[f"{name}{part.removeprefix(attempt)}"] = content
    return found


def _run(options: RunOptions, faults: Faults | None, cache: Path, told: Path) -> int:
    """What the forked process does: as the command, ends with 1 if there is a sentence for what went wrong."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    engines.RETRY_DELAY = 0.0
    code = 0
    if faults is not None:
        faults.install()
    try:
        run_clip(options, Silent())
    except Exception as error:
        traceback.print_exc()
        code = EXPLAINED if explain(error) else DEFECT
    finally:
        if faults is not None:
            descriptor = os.open(told, os.O_WRONLY)
            os.write(descriptor, json.dumps(faults.sites).encode())
    return code


def modes(remote: bool) -> list[tuple[Fault, bool]]:
    """The faults that there are, with whether they last."""
    found: list[tuple[Any, bool]] = [("EIO", False), ("EIO", True), ("ENOSPC", True), ("short", False)]
    return [("refused", False), ("refused", True), ("unanswered", False)] if remote else found
