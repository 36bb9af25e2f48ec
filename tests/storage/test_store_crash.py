"""The artifact store when processes die, collide or run out of disk: an artifact is whole or not there."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from ss4d.storage.artifact import Artifact, read_root
from ss4d.storage.codec import ArrayData
from ss4d.storage.folder import FolderPlace
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore, Writer
from tests.helpers.dying import Steps
from tests.helpers.forks import FORKS
from tests.helpers.places import ROOT

FRAMES = 24


def ref_of(number: int) -> ArtifactRef:
    return ArtifactRef("slat", artifact_key({"number": number}))


def content(number: int) -> dict[str, ArrayData]:
    rng = np.random.default_rng(number)
    return {
        "frames": ArrayData(rng.integers(1, 255, (FRAMES, 64, 64), np.uint8), ("t", "y", "x")),
        "feats": ArrayData(rng.standard_normal((40_000, 8)).astype(np.float32), ("n", "c")),
        "offsets": ArrayData(np.arange(FRAMES + 1), ("t+1",)),
    }


def fill(writer: Writer, number: int, ready: Connection | None = None) -> None:
    for name, array in content(number).items():
        writer.write(name, array)
        if ready is not None and name == "frames":
            ready.send(time.monotonic())
    (writer.folder / "a.ply").write_bytes(bytes([number]) * 200_000)


def make(root: Path, number: int, replace: bool, ready: Connection) -> None:
    """What a child does: tells after its first array, and again at the end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs beside it with Ctrl-C ignored
    try:
        with ArtifactStore(root).create(ref_of(number), replace=replace) as writer:
            fill(writer, number, ready)
            writer.commit({})
        ready.send(time.monotonic())
    except KeyboardInterrupt:
        sys.exit(130)


def start(root: Path, number: int, replace: bool = False) -> tuple[BaseProcess, Connection]:
    """A child that has written its first array and goes on."""
    here, there = FORKS.Pipe()
    child = FORKS.Process(target=make, args=(root, number, replace, there))
    child.start()
    assert here.poll(60), "the child did not start"
    return child, here


def usual_seconds(root: Path) -> float:
    """How long a child takes from its first array to the end; some are made first to warm up."""
    for _ in range(2):
        child, pipe = start(root, 0, replace=True)
        first, last = float(pipe.recv()), float(pipe.recv())
        child.join()
    return last - first


def visible(root: Path) -> set[str]:
    return {path.stem for path in root.glob("*/*/*.zarr")}


def assert_whole(store: ArtifactStore, number: int) -> None:
    artifact = store.open(ref_of(number))
    for name, array in content(number).items():
        assert np.array_equal(artifact.read(name), array.data)
    assert artifact.files()["a.ply"].read_bytes() == bytes([number]) * 200_000


def test_a_killed_writer_leaves_all_or_nothing(tmp_path: Path) -> None:
    root = tmp_path / "store"
    seconds = usual_seconds(root)
    rng = random.Random(0)
    unfinished = 0
    for number in range(1, 16):
        replace = number % 3 == 0  # a third of them die while they replace a complete artifact
        if replace:
            with ArtifactStore(root).create(ref_of(number)) as writer:
                fill(writer, number)
                writer.commit({"generation": 1})
        child, _ = start(root, number, replace)
        time.sleep(seconds * 1.1 * (number - 1) / 15 * rng.uniform(0.8, 1.2))
        child.kill()
        child.join()
        rest = os.listdir(root / ".staging")
        unfinished += bool(rest)
        store = ArtifactStore(root)
        assert os.listdir(root / ".staging") == [], "opening sweeps what the dead left"
        assert store.contains(ref_of(number)) or not replace, "the old one stays until the new one is whole"
        if store.contains(ref_of(number)):
            assert_whole(store, number)
        else:
            assert ref_of(number).key not in visible(root)
    assert unfinished > 0, "no kill came in the middle of a write, so nothing was tested"
    for number in range(1, 16):
        with store.create(ref_of(number)) as writer:
            fill(writer, number)
            writer.commit({})
        assert_whole(store, number)
    assert visible(root) == {ref_of(number).key for number in range(16)}


def small(store: ArtifactStore, generation: int) -> None:
    """Makes a small artifact, in the place of an older one if there is one."""
    with store.create(ref_of(1), replace=True) as writer:
        writer.write("feats", ArrayData(np.full((3, 2), generation), ("t", "c")))
        (writer.folder / "a.ply").write_text(str(generation))
        writer.commit({"generation": generation})


DEEDS: dict[str, Callable[[Path], None]] = {
    "make": lambda root: small(ArtifactStore(root), 1),
    "replace": lambda root: small(ArtifactStore(root), 2),
    "remove": lambda root: ArtifactStore(root).remove(ref_of(1)),
    "sweep": lambda root: ArtifactStore(root).place.sweep(),
}


def do(deed: str, root: Path, death: int | None, tell: Connection) -> None:
    """What a child does that dies at one of its steps; if it does not, it tells how many there are."""
    steps = Steps([root], None if death is None else ("", death))
    DEEDS[deed](root)
    tell.send(steps.counts[""])


def in_child(deed: str, root: Path, death: int | None = None) -> int | None:
    """Lets a child do a deed; how many steps that took, or None if it died."""
    here, there = FORKS.Pipe(duplex=False)
    child = FORKS.Process(target=do, args=(deed, root, death, there))
    child.start()
    there.close()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return here.recv() if child.exitcode == 0 else None


def seen(root: Path) -> int:
    """The generation that a reader finds while nobody has tidied up, 0 if there is none; what it finds is whole."""
    parts = FolderPlace(root).parts(ref_of(1))
    if parts is None:
        return 0
    artifact = Artifact(ref_of(1), parts, read_root(parts, ref_of(1)), "store")
    generation = artifact.attributes["generation"]
    assert artifact.read("feats").tolist() == [[generation] * 2] * 3
    assert artifact.files()["a.ply"].read_text() == str(generation)
    return int(generation)


@pytest.mark.parametrize(("deed", "before", "after"), [("make", 0, 1), ("replace", 1, 2), ("remove", 1, 0)])
def test_killed_before_any_of_its_steps(
    tmp_path: Path, deed: str, before: int, after: int, times: int, chance: random.Random
) -> None:
    def fresh(name: str) -> Path:
        if before:
            small(ArtifactStore(tmp_path / name), before)
        return tmp_path / name

    num_steps = in_child(deed, fresh("whole"))
    assert num_steps is not None
    found = set()
    for death in sorted({1, *chance.sample(range(1, num_steps + 1), min(8 * times, num_steps))}):
        what = f"killed at step {death} of {num_steps}"
        root = fresh(str(death))
        assert in_child(deed, root, death) is None
        generation = seen(root)
        found.add(generation)
        in_child("sweep", root, chance.randint(1, 12))  # what tidies up may be killed, too
        assert seen(root) == generation, what
        ArtifactStore(root)
        assert seen(root) == generation, what
        assert [path for name in (".staging", ".replaced") for path in root.glob(f"{name}/*")] == [], what
        DEEDS[deed](root)
        assert seen(root) == after, what
    assert found <= {before, after}
    assert before in found


def test_an_interrupted_writer_cleans_up(tmp_path: Path) -> None:
    root = tmp_path / "store"
    seconds = usual_seconds(root)
    interrupted = 0
    for number in range(1, 6):
        child, _ = start(root, number)
        time.sleep(seconds * (number - 1) / 5)
        with contextlib.suppress(ProcessLookupError):  # it may be done already
            os.kill(child.pid or 0, signal.SIGINT)
        child.join(60)
        interrupted += child.exitcode == 130
        assert os.listdir(root / ".staging") == []
        assert ArtifactStore(root).contains(ref_of(number)) or child.exitcode == 130
    assert interrupted > 0


def meet(root: Path, replace: bool, barrier: object) -> None:
    """What each of two colliding children does, each holding back until the other is ready to commit."""
    with ArtifactStore(root).create(ref_of(1), replace=replace) as writer:
        fill(writer, 1)
        barrier.wait(60)  # type: ignore[attr-defined]  # multiprocessing names no public type for it
        writer.commit({})


@pytest.mark.parametrize("replace", [False, True])
def test_writers_of_the_same_artifact_all_succeed(tmp_path: Path, replace: bool) -> None:
    store = ArtifactStore(tmp_path / "store")
    for _ in range(3):
        barrier = FORKS.Barrier(3)
        children = [FORKS.Process(target=meet, args=(Path(store.location), replace, barrier)) for _ in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0, 0, 0]
        assert_whole(store, 1)
        assert os.listdir(Path(store.location, ".staging")) == []
        if not replace:
            store.remove(ref_of(1))


FULL_DISK = """
import errno, os, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from ss4d.storage.codec import ArrayData
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore

small, large = ArtifactRef("slat", "0" * 64), ArtifactRef("slat", "1" * 64)

def put(store, ref, rows, **options):
    with store.create(ref, **options) as writer:
        writer.write("feats", ArrayData(np.random.default_rng(0).random((rows, 16)), ("n", "c")))
        (writer.folder / "a.ply").write_bytes(bytes(64 * rows))
        writer.commit({})

for number, options in enumerate(sys.argv[2:]):
    root = Path(sys.argv[1], str(number))
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", root], check=True)
    store = ArtifactStore(root)
    put(store, small, 20)
    for refs, replace in (([large] * 3, False), ([small], True)):
        with ThreadPoolExecutor() as pool:  # several at once must not wait for each other's clean-up for ever
            failed = [pool.submit(put, store, ref, 20_000, replace=replace) for ref in refs]
        for error in (future.exception() for future in failed):
            assert isinstance(error, OSError) and error.errno == errno.ENOSPC, error
        assert os.listdir(root / ".staging") == []
        assert not store.contains(large) and not list(root.glob("*/11/*"))
        assert store.open(small).read("feats").shape == (20, 16)
    store.remove(small)
    put(store, large, 20)
    assert store.open(large).read("feats").shape == (20, 16)
print("passed")
"""


def private_mounts(folder: Path) -> list[str]:
    """A command prefix that lets a process mount where nobody else sees it; skips the test if there is none."""
    for flags in ("-m", "-rm"):
        prefix = ["unshare", flags]
        try:
            subprocess.run([*prefix, "mount", "-t", "tmpfs", "none", folder], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return prefix
    pytest.skip("a small file system cannot be mounted here, neither as root nor in a user namespace")


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    # Full while an array is written, while a plain file is, and when a name or folder is to be made.
    disks = ["size=1m", "size=2560k,nr_inodes=1k", "size=3300k", "size=64m,nr_inodes=16"]
    done = subprocess.run(
        [*private_mounts(tmp_path), sys.executable, "-c", FULL_DISK, tmp_path, *disks],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr
