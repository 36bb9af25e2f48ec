"""Values in memory between stages: the same as if they had been read, each job's own, and no longer than needed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ss4d.pipelines.handover import Handover
from ss4d.pipelines.plan import RUN
from ss4d.pipelines.values import as_read, read_value, scalars, write_value
from ss4d.stages.types import Clip, MeshClip, Tokens
from ss4d.storage.codec import ArrayData
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import open_store
from tests.pipelines.test_contract import meshes

REF = ArtifactRef("conditioning", "a" * 64)


def jobs(*taking: Sequence[ArtifactRef]) -> list:
    return [
        SimpleNamespace(step=SimpleNamespace(action=RUN), inputs={ref.stage: ref for ref in refs}) for refs in taking
    ]


def tokens() -> Tokens:
    return Tokens(feats=torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)))


def never() -> Tokens:
    pytest.fail("it is at hand")


def reading(value: Tokens) -> Callable[[], Tokens]:
    return lambda: value


def test_a_job_is_given_what_an_earlier_one_gave() -> None:
    handover = Handover(jobs([], [REF], [REF]))
    given = tokens()
    handover.keep(REF, given)
    for _ in range(2):
        assert torch.equal(handover.take(REF, never).feats, given.feats)


def test_what_one_job_writes_into_no_other_sees() -> None:
    handover = Handover(jobs([], [REF], [REF]))
    given, wanted = tokens(), tokens()
    handover.keep(REF, given)
    given.feats.zero_()
    handover.take(REF, never).feats.zero_()
    assert torch.equal(handover.take(REF, never).feats, wanted.feats)


def test_what_is_not_at_hand_is_read_once_for_all_who_take_it() -> None:
    handover = Handover(jobs([REF], [REF]))
    read = tokens()
    assert torch.equal(handover.take(REF, reading(read)).feats, read.feats)
    assert torch.equal(handover.take(REF, never).feats, read.feats)


def test_a_job_that_is_tried_again_reads() -> None:
    handover = Handover(jobs([], [REF]))
    handover.keep(REF, tokens())
    handover.take(REF, never)
    again = tokens()
    assert handover.take(REF, reading(again)) is again


def test_nothing_is_kept_that_no_later_job_takes() -> None:
    handover = Handover(jobs([], []))
    handover.keep(REF, tokens())
    read = tokens()
    assert handover.take(REF, reading(read)) is read


def test_a_value_is_as_it_would_be_read() -> None:
    rgb = torch.zeros(3, 4, 4, 2, dtype=torch.uint8).transpose(0, 3)[:, :, :, :3].contiguous().transpose(1, 2)
    clip = Clip(
        rgb=rgb,
        alpha=torch.full((2, 4, 4), 7, dtype=torch.uint8),
        crop=torch.arange(4),
        confidence=torch.ones(2, requires_grad=True),
        method="alpha",
        fps=24.0,
    )
    copied = as_read(clip)
    assert (copied.method, copied.fps) == ("alpha", 24.0)
    for name in Clip.specs():
        before, after = getattr(clip, name), getattr(copied, name)
        assert torch.equal(before, after)
        assert after.is_contiguous()
        assert not after.requires_grad
        assert after.data_ptr() != before.data_ptr()


def test_what_was_stored_before_an_optional_array_was_declared_comes_without_it(tmp_path: Path) -> None:
    ref, feats = ArtifactRef("conditioning", "b" * 64), tokens().feats
    store = open_store(tmp_path)
    with store.create(ref) as writer:
        writer.write("feats", ArrayData(data=feats.numpy(), dims=("t", "l", "c")))
        writer.commit({"values": {}})
    read = read_value(Tokens, store.open(ref))
    assert torch.equal(read.feats, feats)
    assert read.guess.shape == (0, 0, 0, 0)


def test_meshes_are_read_as_they_were_written_and_frame_by_frame(tmp_path: Path) -> None:
    clip, ref = meshes(), ArtifactRef("mesh", "a" * 64)
    store = open_store(tmp_path)
    with store.create(ref) as writer:
        write_value(writer, clip)
        writer.commit({"values": scalars(clip)})
    read = read_value(MeshClip, store.open(ref))
    joined = MeshClip.joined([read.frame(t) for t in range(clip.num_frames)])
    for name in MeshClip.specs():
        assert torch.equal(getattr(read, name), getattr(clip, name))
        assert torch.equal(getattr(joined, name), getattr(clip, name))
    assert [len(read.frame(t).faces) for t in range(3)] == [1, 0, 2]
    assert torch.equal(read.frame(2).vertices, clip.vertices[3:])
