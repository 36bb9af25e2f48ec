"""The loop on a problem of three numbers: what it leaves on disk, and how it goes on."""

import dataclasses
import json
import math
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ss4d.stages.data.clip import HELD_OUT_SEED, ClipSpec, make_clip
from ss4d.stages.errors import InputError, TrainingError
from ss4d.stages.training.clips import cut, draw, make_pool, pack, read_clip
from ss4d.stages.training.ema import Ema
from ss4d.stages.training.files import UNFINISHED, whole_folder, write_whole
from ss4d.stages.training.log import Log, read_log, write_curves, write_png
from ss4d.stages.training.loop import train
from ss4d.stages.training.objective import Losses
from ss4d.stages.training.product_format import faster_in_bfloat16
from ss4d.stages.training.settings import TrainSettings
from ss4d.stages.training.windows import StoredClips, Windows
from ss4d.stages.types import silent

SETTINGS = TrainSettings(
    steps=20, batch=4, learning_rate=0.1, warmup=3, save_every=5, picture_every=10, log_every=4, ema=0.9
)


class Fit:
    """Fits a line to noisy points; a batch is a list of numbers."""

    name = "fit"

    def __init__(self, broken_at: int = -1) -> None:
        torch.manual_seed(0)
        self.line, self.unused = nn.Linear(1, 1), nn.Linear(1, 1)  # a weight without gradient must do no harm
        self.broken_at, self.calls = broken_at, 0

    def trained(self) -> dict[str, nn.Module]:
        return {"line": self.line, "unused": self.unused}

    def loss(self, clips, generator) -> Losses:
        x = torch.tensor([[float(value)] for value in clips])
        y = 3 * x - 1 + 0.1 * torch.randn(x.shape, generator=generator)
        error = (self.line(x) - y).square().mean()
        self.calls += 1
        return Losses(error * (math.nan if self.calls == self.broken_at else 1), {"error": error.detach()})

    def pictures(self, clips) -> dict[str, torch.Tensor]:
        return {"line": torch.full((4, 6, 3), 7, dtype=torch.uint8)}


class Numbers:
    def batch(self, step: int, count: int) -> list:
        return [draw("number", step, i, below=1000) / 500 - 1 for i in range(count)]


def fit(folder: Path, objective: Fit | None = None, **options) -> Fit:
    objective = objective or Fit()
    settings = options.pop("settings", SETTINGS)
    identity = settings.decides()
    train(objective, Numbers(), settings, folder, identity=identity, shown=[], say=lambda line: None, **options)
    return objective


def values(folder: Path) -> list[tuple[float, ...]]:
    return [(row["step"], row["loss"], row["error"], row["gradient"], row["rate"]) for row in read_log(folder)]


def test_the_loss_falls_and_everything_is_written(tmp_path: Path) -> None:
    objective = fit(tmp_path, settings=dataclasses.replace(SETTINGS, steps=60))
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]
    assert float(objective.line.weight.detach()) == pytest.approx(3, abs=0.5)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00000055", "00000060"]
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir())[0] == "line-000010.png"
    assert len(ElementTree.parse(tmp_path / "curves.svg").getroot().findall(".//{*}path")) == 5


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stop", [3, 5, 7, 19])
def test_going_on_gives_the_same_losses(tmp_path: Path, stop: int) -> None:
    whole = fit(tmp_path / "whole")

    class Stopping(Fit):
        def loss(self, clips, generator) -> Losses:
            if self.calls == stop:
                raise Killed
            return super().loss(clips, generator)

    with pytest.raises(Killed):
        fit(tmp_path / "parts", Stopping())
    with (tmp_path / "parts" / "log.jsonl").open("a") as log:
        log.write('{"step": 99')  # a line that was being written
    (tmp_path / "parts" / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / "parts" / "checkpoints" / f"{UNFINISHED}00000025").mkdir()  # and a checkpoint
    resumed = fit(tmp_path / "parts")
    assert values(tmp_path / "parts") == values(tmp_path / "whole")
    assert torch.equal(resumed.line.weight, whole.line.weight)
    assert resumed.calls == 20 - stop // 5 * 5


def test_time_up_leaves_a_checkpoint(tmp_path: Path) -> None:
    class Slow(Fit):
        def loss(self, clips, generator) -> Losses:
            while self.calls == 6 and time.monotonic() < deadline:
                time.sleep(0.05)
            return super().loss(clips, generator)

    first = Slow()
    deadline = time.monotonic() + 5
    identity = SETTINGS.decides()
    assert not train(
        first, Numbers(), SETTINGS, tmp_path, identity=identity, shown=[], say=lambda line: None, deadline=deadline
    )
    assert first.calls == 7
    second = fit(tmp_path)
    assert first.calls + second.calls == 20
    assert fit(tmp_path).calls == 0
    fit(tmp_path.parent / "whole")
    assert values(tmp_path) == values(tmp_path.parent / "whole")


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(InputError, match="another training"):
        fit(tmp_path, settings=dataclasses.replace(SETTINGS, seed=1))
    fit(tmp_path, settings=dataclasses.replace(SETTINGS, log_every=7))  # looking more often changes nothing


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fit is nan at step 8"):
        fit(tmp_path, Fit(broken_at=8))
    assert max(p.name for p in (tmp_path / "checkpoints").iterdir()) == "00000005"


def test_the_rate_rises_then_falls() -> None:
    settings = dataclasses.replace(SETTINGS, steps=100, warmup=10)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.01 * i for i in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.001, rel=0.1)
    assert dataclasses.replace(settings, schedule="constant").rate(99) == 0.1


def test_the_average_follows_and_is_lent() -> None:
    weight = torch.zeros(3)
    ema = Ema({"w": weight}, 0.9)
    expected = 0.0
    for step in range(50):
        weight += 1
        ema.update(step)
        keep = min(0.9, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * (step + 1)
    with ema.applied():
        assert weight.tolist() == pytest.approx([expected] * 3)
    assert weight.tolist() == [50] * 3


def test_a_log_drops_what_lies_beyond(tmp_path: Path) -> None:
    log = Log(tmp_path, 0)
    log.add([{"step": step, "loss": 1.0} for step in range(1, 6)])
    log = Log(tmp_path, 3)
    log.add([{"step": 4, "loss": 2.0}])
    assert [(row["step"], row["loss"]) for row in read_log(tmp_path)] == [(1, 1), (2, 1), (3, 1), (4, 2)]


def test_curves_stand_flat_and_odd_values(tmp_path: Path) -> None:
    rows = [{"step": i, "flat": 1.0, "odd": math.nan if i == 2 else -i} for i in range(1, 1000)]
    write_curves(tmp_path / "curves.svg", rows)
    paths = ElementTree.parse(tmp_path / "curves.svg").getroot().findall(".//{*}path")
    assert len(paths) == 2
    assert all(len(path.get("d").split()) < 400 for path in paths)


def test_pictures_are_png(tmp_path: Path) -> None:
    picture = torch.randint(256, (5, 7, 3), generator=torch.Generator().manual_seed(0)).byte()
    write_png(tmp_path / "a.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture.numpy())
    assert struct.unpack(">I", (tmp_path / "a.png").read_bytes()[-4:])[0] == zlib.crc32(b"IEND")


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    def half() -> None:
        with whole_folder(tmp_path / "a") as draft:
            write_whole(draft / "half", b"1")
            raise Killed

    with pytest.raises(Killed):
        half()
    assert not (tmp_path / "a").exists()
    for content in (b"1", b"2"):
        with whole_folder(tmp_path / "a") as draft:
            write_whole(draft / "file", content)
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "a").iterdir()] == [("file", b"2")]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


SPEC = ClipSpec(seed=0, num_frames=4, input_size=16, num_views=1, view_size=8, resolution=8)


def test_clips_survive_packing_and_cutting(tmp_path: Path) -> None:
    clip = make_clip(dataclasses.replace(SPEC, seed=5))
    (tmp_path / "c.safetensors").write_bytes(pack(clip))
    again = read_clip(tmp_path / "c.safetensors")
    for field in dataclasses.fields(clip):
        one, two = getattr(clip, field.name), getattr(again, field.name)
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    part = cut(clip, 1, 2)
    assert part.num_frames == 2
    assert part.views.shape[1] == 2
    chosen = (clip.coords[:, 1] == 1) | (clip.coords[:, 1] == 2)
    assert torch.equal(part.feats, clip.feats[chosen])
    assert torch.equal(part.coords[:, 1], clip.coords[chosen][:, 1] - 1)
    (tmp_path / "c.safetensors").write_bytes(pack(clip)[:100])
    with pytest.raises(InputError, match=r"c\.safetensors"):
        read_clip(tmp_path / "c.safetensors")


def test_a_pool_is_made_once_and_sampled_by_seed_and_step(tmp_path: Path) -> None:
    pool = make_pool(tmp_path, SPEC, 7, range(5), 1, progress=silent)
    seeds = [pool.read(i).seed for i in range(5)]
    assert len(set(seeds)) == 5
    assert max(seeds) < HELD_OUT_SEED
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    (tmp_path / "000003.safetensors").unlink()
    assert [make_pool(tmp_path, SPEC, 7, range(5), 1, progress=silent).read(i).seed for i in range(5)] == seeds
    assert sum(p.stat().st_mtime_ns != before[p] for p in tmp_path.iterdir()) == 1
    later = make_pool(tmp_path, SPEC, 7, range(4, 7), 1, progress=silent)  # of which the first is there
    assert len(later) == 3
    assert later.read(0).seed == seeds[4]
    assert not {later.read(i).seed for i in (1, 2)} & set(seeds)
    with pytest.raises(InputError, match="made in another way"):
        make_pool(tmp_path, SPEC, 8, range(5), 1, progress=silent)

    def drawn(seed: int, steps: range, processes: int = 0) -> list[list[int]]:
        source = StoredClips(Windows(store=pool, seed=seed, num_frames=4, resolution=8), processes)
        try:
            return [[clip.seed for clip in source.batch(step, 3)] for step in steps]
        finally:
            source.close()

    ten = drawn(0, range(10))
    assert drawn(0, range(4, 10)) == ten[4:]
    assert drawn(1, range(10)) != ten
    assert drawn(0, range(3, 5), processes=2) == ten[3:5]  # as a GPU's are read
    flat = [seed for batch in ten for seed in batch]
    assert all(sorted(flat[i : i + 5]) == sorted(seeds) for i in range(0, 30, 5))  # each clip once an epoch
    assert flat[:5] != flat[5:10]
    with pytest.raises(InputError, match="--resolution 16"):
        Windows(store=pool, seed=0, num_frames=4, resolution=16).batch(0, 1)
    with pytest.raises(InputError, match="--axes camera"):
        Windows(store=pool, seed=0, num_frames=4, resolution=8, axes="camera").batch(0, 1)


def test_reading_beside_the_networks_leaves_them_their_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(tmp_path, SPEC, 7, range(2), 1, progress=silent)
    changed: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", changed.append)  # which is the whole process's
    source = StoredClips(Windows(store=pool, seed=0, num_frames=2, resolution=8, vary=True))
    try:
        assert len(source.batch(0, 3)) == 3
    finally:
        source.close()
    assert not changed


def test_the_log_is_plain_json(tmp_path: Path) -> None:
    fit(tmp_path)
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first.keys() == {"step", "loss", "error", "gradient", "rate", "steps_per_second"}


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=5)
    whole = fit(tmp_path / "whole", settings=settings)
    fit(tmp_path / "run", settings=settings)
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1] / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    again = fit(tmp_path / "run", settings=settings)
    assert again.calls == 5
    assert torch.equal(again.line.weight, whole.line.weight)
    assert values(tmp_path / "run") == values(tmp_path / "whole")
    for file in (tmp_path / "run" / "checkpoints").glob("*/step.json"):
        file.write_text("{}")
    with pytest.raises(InputError, match="are damaged; delete"):
        fit(tmp_path / "run", settings=settings)


def test_slow_steps_are_saved_by_the_clock(tmp_path: Path) -> None:
    fit(tmp_path, settings=replace(SETTINGS, save_every=1000, save_seconds=0.0))
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["00000019", "00000020"]


def test_a_short_training_reaches_its_rate_and_falls() -> None:
    settings = TrainSettings(steps=10, batch=1, learning_rate=1.0, warmup=100)
    rates = [settings.rate(step) for step in range(10)]
    assert max(rates) == 1.0
    assert rates[-1] < 0.1


def test_a_damaged_clip_of_a_pool_is_made_again(tmp_path: Path) -> None:
    pool = make_pool(tmp_path, SPEC, 7, range(4), 1, progress=silent)
    seeds = [pool.read(i).seed for i in range(4)]
    files = sorted(tmp_path.glob("*.safetensors"))
    contents = [file.read_bytes() for file in files]
    files[0].write_bytes(b"")
    files[1].write_bytes(contents[1][:-1] + bytes([contents[1][-1] ^ 1]))
    files[2].write_bytes(contents[2][:100])
    assert [pool.read(i).seed for i in range(4)] == seeds
    assert [file.read_bytes() for file in files] == contents, "made again, to the last bit"


def test_a_damaged_line_of_the_log_is_named(tmp_path: Path) -> None:
    fit(tmp_path)
    log = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    for damaged in ("{\n", "[]\n", "7\n"):
        log.write_text("".join([*lines[:2], damaged, *lines[3:]]))
        with pytest.raises(InputError, match="line 3 of"):
            fit(tmp_path)


@pytest.mark.parametrize(("wanted", "faster"), [(True, True), (True, False), (False, True)])
def test_products_are_in_bfloat16_where_that_is_wanted_and_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool, faster: bool
) -> None:
    class Watched(Fit):
        def loss(self, clips, generator) -> Losses:
            assert torch.is_autocast_enabled("cpu") == (wanted and faster)
            return super().loss(clips, generator)

    monkeypatch.setattr("ss4d.stages.training.loop.faster_in_bfloat16", lambda device: faster)
    lines: list[str] = []
    settings = replace(SETTINGS, steps=2, bfloat16=wanted)
    train(Watched(), Numbers(), settings, tmp_path / "run", identity={}, shown=[], say=lines.append)
    assert any("float32" in line for line in lines) == (wanted and not faster)


def test_products_are_timed_in_both_formats() -> None:
    assert isinstance(faster_in_bfloat16(torch.device("cpu")), bool)
    assert faster_in_bfloat16(torch.device("cuda"))
