"""Clips of asset files: every animation that moves, and the same clip for the same number."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ss4d.stages.data.clip import ClipSpec
from ss4d.stages.errors import InputError
from ss4d.stages.training.assets import MixedClips, asset_pool
from tests.helpers.gltf_files import tetrahedron

SPEC = ClipSpec(seed=0, num_frames=4, input_size=16, num_views=1, view_size=8, resolution=8, axes="camera")
MOVED = [[0.0, 0, 0], [1.5, 0, 0]]


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """A folder with a file of two animations, of which the second stands still, and one that cannot be read."""
    folder = tmp_path / "assets"
    folder.mkdir()
    builder = tetrahedron()
    builder.animate((0, "translation", [0.0, 1.0], MOVED, "LINEAR"))
    moving = builder.json["animations"]
    builder.animate((0, "translation", [0.0, 1.0], [MOVED[0]] * 2, "LINEAR"))
    builder.json["animations"] = moving + builder.json["animations"]
    builder.save(folder / "one.glb")
    (folder / "two.glb").write_bytes(b"no asset")
    return folder


def test_only_what_moves_is_filmed(assets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pool = asset_pool(tmp_path / "clips", assets, SPEC, 0, 4)
    assert [(motion.file.name, motion.way.animation) for motion in pool.motions] == [("one.glb", 0)]
    assert "two.glb" in caplog.text
    (assets / "one.glb").unlink()
    with pytest.raises(InputError, match="moves"):
        asset_pool(tmp_path / "others", assets, SPEC, 0, 4)


def test_a_number_is_a_clip(assets: Path, tmp_path: Path) -> None:
    pool = asset_pool(tmp_path / "clips", assets, SPEC, 0, 4)
    told: list[tuple[int, int]] = []
    pool.make(1, lambda done, total: told.append((done, total)))
    assert told == [(3, 4), (4, 4)]  # of each moment there are three
    pool.make(2, lambda done, total: told.append((done, total)))
    assert told[2:] == [], "all are there"
    clips = [pool.read(number) for number in range(4)]
    assert {clip.family for clip in clips} == {"one"}
    assert {clip.axes for clip in clips} == {"camera"}
    assert len({clip.seed for clip in clips}) == 4
    file = tmp_path / "clips" / "000002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])  # damaged: it is made again
    again = asset_pool(tmp_path / "clips", assets, SPEC, 0, 4).read(2)
    assert torch.equal(again.frames, clips[2].frames)
    assert not torch.equal(clips[1].frames, clips[2].frames)


def test_how_files_move_is_seen_once(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clips"
    first = asset_pool(folder, assets, SPEC, 0, 4)
    looked: list[Path] = []
    monkeypatch.setattr("ss4d.stages.data.gltf.moving", lambda file, **_: looked.append(file) or [])
    assert asset_pool(folder, assets, SPEC, 0, 4).motions == first.motions
    assert [file.name for file in looked] == ["two.glb"]  # which cannot be used, and is told of again
    monkeypatch.undo()
    kept = folder / "motions.json"
    for content in ("", "[]", kept.read_text()[:-9], kept.read_text().replace("begin", "bogus")):
        kept.write_text(content)
        assert asset_pool(folder, assets, SPEC, 0, 4).motions == first.motions


def test_clips_of_other_files_are_refused(assets: Path, tmp_path: Path) -> None:
    asset_pool(tmp_path / "clips", assets, SPEC, 0, 4)
    label = json.loads((tmp_path / "clips" / "pool.json").read_text())
    assert list(label["assets"]) == ["one.glb", "two.glb"]
    shutil.copy(assets / "one.glb", assets / "three.glb")
    with pytest.raises(InputError, match="another way"):
        asset_pool(tmp_path / "clips", assets, SPEC, 0, 4)


class Numbers:
    """Stands in for a store: its clips are numbers."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, index: int) -> int:
        return self._numbers[index]


def test_mixed_clips_have_their_share() -> None:
    mixed = MixedClips(Numbers(*range(70)), Numbers(1000, 1001, 1002), 0.3)  # type: ignore[arg-type]
    read = [mixed.read(index) for index in range(len(mixed))]
    assert len(read) == 100
    assert read[:70] == list(range(70))
    assert set(read[70:]) == {1000, 1001, 1002}  # type: ignore[comparison-overlap]
