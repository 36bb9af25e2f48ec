"""Whole runs that are killed anywhere, collide or fill the disk: the next one makes what an undisturbed one makes.

The runs are forked, so that many can be killed; `make stress` kills hundreds.
"""

import errno
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import pytest
import torch
from obstore.store import from_url

from ss4d.pipelines.plan import REUSE, Wish
from ss4d.pipelines.run import RunOptions, run_clip
from ss4d.storage.folder import FolderPlace
from ss4d.storage.objects import ObjectPlace
from ss4d.storage.place import ROOT, Parts, Place
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import open_store
from ss4d.storage.verify import verify
from tests.conftest import FAST, Silent, record
from tests.helpers.dying import PHASES, Steps, Watched
from tests.helpers.forks import FORKS
from tests.helpers.places import ROOT as CHECKOUT
from tests.storage.test_store_crash import private_mounts

if TYPE_CHECKING:
    from tests.helpers.s3_server import S3

pytest_plugins = ["tests.helpers.s3_server"]
COSTS = {"seconds", "peak_memory", "peak_device_memory", "digest"}  # of its description, which holds them
Snapshot = dict[ArtifactRef, dict[str, Any]]
Death = tuple[str, int] | None


def run(options: RunOptions, environment: dict[str, str], death: Death, tell: Any, barrier: Any) -> None:
    """What a child does. Tells that it begins, each stage that it reaches, and at the end its steps by phase."""
    os.environ.update(environment)
    steps = Steps([options.out, Path(environment["XDG_CACHE_HOME"])], death, PHASES)
    if barrier is not None:
        barrier.wait(60)
    tell.send("begun")
    run_clip(options, Watched(steps, tell.send))
    tell.send(steps.counts)


@dataclass
class Child:
    """A run in a process of its own, and what it told."""

    process: Any
    pipe: Any
    told: list[Any] = field(default_factory=list)

    def wait_until_begun(self) -> None:
        assert self.pipe.poll(60), "the child did not start"
        assert self.pipe.recv() == "begun"

    def end(self) -> int:
        """The exit code, once the process is gone."""
        self.process.join(120)
        assert self.process.exitcode is not None, "the child does not end"
        try:
            while True:
                self.told.append(self.pipe.recv())
        except EOFError:
            return int(self.process.exitcode)


@dataclass
class Runs:
    """Runs of one clip into one folder and store, and what must come out of them."""

    options: RunOptions
    whole: Snapshot
    results: dict[str, bytes]
    before: dict[ArtifactRef, float] = field(default_factory=dict)  # when what is complete was made

    @property
    def place(self) -> Place:
        """Where the artifacts lie; nothing is swept by looking at it."""
        if self.options.store is not None:
            return ObjectPlace.at(self.options.store)
        return FolderPlace(self.options.out / "store")

    def start(self, death: Death = None, barrier: Any = None) -> Child:
        """A child that runs the clip."""
        here, there = FORKS.Pipe(duplex=False)
        environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "XDG_"))}
        process = FORKS.Process(target=run, args=(self.options, environment, death, there, barrier))
        process.start()
        there.close()
        return Child(process, here)

    def killed(self, death: Death = None, seconds: float | None = None) -> bool:
        """Lets a run die at a step or after some seconds, and looks at what it left; False if it ended well before."""
        child = self.start(death)
        child.wait_until_begun()
        if seconds is not None:
            child.process.join(seconds)
            child.process.kill()
        code = child.end()
        what = f"killed at {death or seconds}"
        assert code in (0, -signal.SIGKILL), f"ended with {code}, {what}"
        self.look(child, what)
        return code != 0

    def look(self, child: Child, what: str) -> None:
        """After a child's end: whatever can be seen is whole, and what was complete was neither made nor touched."""
        place, stored = self.place, {ref.stage for ref in self.before}
        found = {ref: place.modified(ref) for ref in place.refs()}
        assert found | self.before == found, f"what was complete was made again, {what}"
        for ref, content in snapshot(place, found.keys() - self.before.keys()).items():
            assert content == self.whole[ref], f"{ref} is not what it is in an undisturbed run, {what}"
        begun = [told for told in child.told if isinstance(told, tuple)]
        computed = [stage for stage, action in begun if stage in stored and action != REUSE]
        assert computed == [], f"complete, and computed again, {what}"
        self.before = found

    def complete(self) -> None:
        """Lets a run end well: everything is there as in an undisturbed run, and nothing else."""
        child = self.start()
        child.wait_until_begun()
        assert child.end() == 0
        self.look(child, "run to the end")
        self.assert_whole()

    def assert_whole(self) -> None:
        assert snapshot(self.place) == self.whole
        assert files_of(self.options.out / "runs" / "disc") == self.results
        assert record(self.options.out, "disc")["state"] == "complete"
        for folder in ("store/.staging", "store/.replaced"):
            assert not (self.options.out / folder).exists() or os.listdir(self.options.out / folder) == []


def snapshot(place: Place, refs: Iterable[ArtifactRef] | None = None) -> Snapshot:
    """What can be seen in a store, or of some artifacts: the files, the description without what it cost."""
    chosen = place.refs() if refs is None else refs
    return {ref: content_of(parts) for ref in chosen if (parts := place.parts(ref)) is not None}


def content_of(parts: Parts) -> dict[str, Any]:
    content: dict[str, Any] = {name: parts.read(name) for name in parts.sizes()}
    attributes = json.loads(content.get(ROOT, b'{"attributes": {}}'))["attributes"]
    return content | {ROOT: {name: value for name, value in attributes.items() if name not in COSTS}}


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a run's folder, hidden ones too, but the record."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing disturbed: what it made, its steps by phase, and how long it took."""

    runs: Runs
    counts: Counter[str]
    seconds: float

    def again(self, out: Path, **changes: Any) -> Runs:
        """The same run into another folder."""
        return Runs(replace(self.runs.options, out=out, **changes), self.runs.whole, self.runs.results)

    def some_deaths(self, chance: random.Random, num: int) -> list[tuple[str, int]]:
        """Steps to die at, `num` in each phase, in order."""
        return [(phase, n) for phase in PHASES for n in sorted(chance.sample(range(1, self.counts[phase] + 1), num))]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Staging and copies of remote stores lie here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "ss4d" / "store"


@pytest.fixture(scope="module")
def undisturbed(model_folder: Path, clip: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    options = RunOptions(
        source=clip,
        out=tmp_path_factory.mktemp("undisturbed"),
        overrides=(f"model={model_folder}", *FAST),
        device="cpu",
        engine="direct",
    )
    return measured(Runs(options, {}, {}))


def measured(runs: Runs) -> Undisturbed:
    child = runs.start()
    child.wait_until_begun()
    started = time.monotonic()
    assert child.end() == 0
    seconds = time.monotonic() - started
    runs = Runs(runs.options, snapshot(runs.place), files_of(runs.options.out / "runs" / "disc"))
    assert [ref.stage for ref in runs.whole] == sorted(PHASES[1:-1])
    assert set(child.told[-1]) == set(PHASES)
    return Undisturbed(runs, child.told[-1], seconds)


def test_killed_at_any_step_of_any_stage(
    undisturbed: Undisturbed, tmp_path: Path, times: int, chance: random.Random
) -> None:
    for number in range(times):
        runs = undisturbed.again(tmp_path / str(number))
        kills = sum(runs.killed(death) for death in undisturbed.some_deaths(chance, 2))
        assert kills > len(PHASES)
        runs.complete()


def test_killed_at_random_instants(undisturbed: Undisturbed, tmp_path: Path, times: int, chance: random.Random) -> None:
    kills = 0
    while kills < 8 * times:
        runs = undisturbed.again(tmp_path / str(kills))
        for _ in range(8):  # each goes on where the one before was
            if not runs.killed(seconds=chance.uniform(0, undisturbed.seconds)):
                break
            kills += 1
        runs.complete()


def test_what_a_killed_run_laid_out_goes_with_the_next(undisturbed: Undisturbed, tmp_path: Path) -> None:
    four = undisturbed.again(tmp_path)
    two = undisturbed.again(tmp_path, overrides=(*four.options.overrides, "input.count=2"))
    assert two.start().end() == 0
    assert four.start(("end", undisturbed.counts["end"] - 10)).end() == -signal.SIGKILL
    frames = tmp_path / "runs/disc/frames"
    assert len(list(frames.iterdir())) > 2, "the kill came too early to test anything"
    assert two.start().end() == 0
    assert sorted(path.name for path in frames.iterdir()) == ["frame0001.ply", "frame0002.ply"]


@pytest.mark.parametrize("wish", [Wish(), Wish(from_stage="segmentation")], ids=["new", "again"])
def test_two_runs_of_a_clip_at_once(undisturbed: Undisturbed, tmp_path: Path, times: int, wish: Wish) -> None:
    for number in range(times):
        out = tmp_path / str(number)
        if wish.from_stage:
            shutil.copytree(undisturbed.runs.options.out, out)
        runs = undisturbed.again(out, wish=wish)
        barrier = FORKS.Barrier(2)
        children = [runs.start(barrier=barrier) for _ in range(2)]
        assert [child.end() for child in children] == [0, 0]
        runs.assert_whole()


def test_a_run_goes_on_when_another_of_the_same_clip_is_killed(
    undisturbed: Undisturbed, tmp_path: Path, times: int, chance: random.Random
) -> None:
    for number in range(2 * times):
        runs = undisturbed.again(tmp_path / str(number))
        barrier = FORKS.Barrier(2)
        death = chance.choice(undisturbed.some_deaths(chance, 1))
        dies, lives = runs.start(death, barrier), runs.start(barrier=barrier)
        assert (dies.end() in (0, -signal.SIGKILL), lives.end()) == (True, 0), f"killed at {death}"
        runs.complete()  # and sweeps


# ---- a full disk ----


def test_a_run_that_filled_the_disk_goes_on_when_there_is_room(undisturbed: Undisturbed, tmp_path: Path) -> None:
    used = sum(path.stat().st_size for path in undisturbed.runs.options.out.rglob("*") if path.is_file())
    sizes = [f"size={used * share // 100}" for share in (30, 85)]
    script = f"import sys, pickle; from {__name__} import fill_disks; fill_disks(*pickle.load(sys.stdin.buffer))"
    done = subprocess.run(
        [*private_mounts(tmp_path), sys.executable, "-c", script],
        input=pickle.dumps((undisturbed, tmp_path, sizes)),
        cwd=CHECKOUT,
        capture_output=True,
        timeout=200,
    )
    assert (done.returncode, done.stdout) == (0, b"passed\n"), done.stderr.decode()


def fill_disks(undisturbed: Undisturbed, folder: Path, sizes: Sequence[str]) -> None:
    """What a process does that alone sees what it mounts."""
    torch.set_num_threads(1)  # as in the undisturbed run: a convolution's rounding depends on it
    for size in sizes:
        out = folder / size
        out.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", out], check=True)
        runs = undisturbed.again(out)
        with pytest.raises(OSError, match=f"Errno {errno.ENOSPC}"):
            run_clip(runs.options, Silent())
        assert all(content == runs.whole[ref] for ref, content in snapshot(runs.place).items())
        assert os.listdir(out / "store/.staging") == []
        stored = set(snapshot(runs.place))
        subprocess.run(["mount", "-o", "remount,size=64m", out], check=True)
        run_clip(runs.options, Silent())
        runs.assert_whole()
        states = {entry["key"]: entry["state"] for entry in record(out, "disc")["stages"].values()}
        assert {ref.key for ref in stored} == {key for key, state in states.items() if state == "reused"}
    print("passed")


# ---- an object store ----


def test_killed_anywhere_with_an_object_store(
    undisturbed: Undisturbed, s3: "S3", cache: Path, tmp_path: Path, times: int, chance: random.Random
) -> None:
    remote = measured(undisturbed.again(tmp_path / "whole", store=s3.new_url()))
    assert remote.runs.whole == undisturbed.runs.whole, "where artifacts lie changes nothing"
    for number in range(times):
        runs = remote.again(tmp_path / str(number), store=s3.new_url())
        kills = sum(runs.killed(death) for death in remote.some_deaths(chance, 1))
        kills += sum(runs.killed(seconds=chance.uniform(0, remote.seconds / 3)) for _ in range(2))
        assert kills > 5
        runs.complete()
        store = open_store(str(runs.options.store))
        for name in store.place.abandoned(0):  # gc does so after a week
            store.place.discard(name)
        runs.assert_whole()
        assert [name for name in os.listdir(cache) if f"-{os.getpid()}-" not in name] == []


def test_the_command_with_an_object_store(
    ss4d: Callable[..., subprocess.CompletedProcess[str]],
    undisturbed: Undisturbed,
    s3: "S3",
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in the undisturbed run: a convolution's rounding depends on it
    url = s3.new_url()

    def states() -> Counter[str]:
        done = ss4d(clip, tmp_path, "--store", url)
        assert done.returncode == 0, done.stderr
        return Counter(entry["state"] for entry in record(tmp_path, "disc")["stages"].values())

    assert states() == {"computed": 6}
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"], "nothing is kept here"
    objects = from_url(url, client_options={"allow_http": True})
    names = [meta["path"] for batch in obstore.list(objects) for meta in batch]
    (frame,) = (name for name in names if name.endswith("frame0002.ply"))
    obstore.put(objects, frame, bytes(obstore.get(objects, frame).bytes())[:-1])
    words = [sys.executable, "-m", "ss4d.cli.entry", "verify", url, "--repair"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert found.returncode == 1
    assert "damaged: export/" in found.stderr
    assert "5 of 6 artifacts are whole" in found.stderr
    assert "The damaged ones are deleted." in found.stderr
    assert states() == {"computed": 1, "reused": 5}
    assert snapshot(ObjectPlace.at(url)) == undisturbed.runs.whole
    assert verify(open_store(url), lambda *_: None).damaged == {}
