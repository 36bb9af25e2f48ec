"""Clips on guessed voxels, against a slow search for the nearest true one, and with networks that guess as told."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import Generator, Tensor, nn

from stages.data.clip import ClipSpec, TrainingClip, make_clip
from stages.ops.backend import TORCH_OPS
from stages.training.fresh import fresh_network
from stages.training.guesses import GUESSED, StructureGuess, nearest, on_voxels
from stages.training.recipe import SMOKE

SPEC = ClipSpec(seed=3, num_frames=3, input_size=16, num_views=1, view_size=8, resolution=8)


@pytest.fixture(scope="module")
def clip() -> TrainingClip:
    return make_clip(SPEC)


def tokens(clips: int) -> Tensor:
    return torch.zeros(clips, SPEC.num_frames, 1, 24)


def generator() -> Generator:
    return Generator().manual_seed(0)


class Told(nn.Module):
    """A decoder that finds the cells it was told of in every clip."""

    def __init__(self, coords: Tensor) -> None:
        super().__init__()
        self.logits = torch.full((SPEC.num_frames, 1, *[SPEC.resolution] * 3), -1.0)
        t, x, y, z = coords[:, 1:].long().unbind(1)
        self.logits[t, 0, x, y, z] = 1

    def forward(self, latent: Tensor) -> Tensor:
        return self.logits[: len(latent)]


class Still(nn.Module):
    args = SimpleNamespace(in_channels=8, resolution=4)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        assert x.shape[:2] == t.shape == cond.shape[:2]
        return torch.zeros_like(x)


def guesses(clips: list[TrainingClip], coords: Tensor) -> list[TrainingClip]:
    return StructureGuess(Still(), Told(coords))(clips, tokens(len(clips)), generator())  # type: ignore[arg-type]


def test_on_its_own_voxels_a_clip_is_itself(clip: TrainingClip) -> None:
    same = on_voxels(clip, clip.coords)
    assert torch.equal(same.coords, clip.coords)
    assert torch.equal(same.feats, clip.feats)


def test_every_voxel_looks_like_the_nearest_true_one_of_its_frame(clip: TrainingClip) -> None:
    drawn = torch.rand((SPEC.num_frames, *[SPEC.resolution] * 3), generator=generator()) < 0.2
    coords = torch.nonzero(drawn).int()
    coords = torch.cat([torch.zeros_like(coords[:, :1]), coords], 1)
    other = on_voxels(clip, coords)
    assert torch.equal(other.coords, coords)
    for row, feats in zip(coords.tolist(), other.feats, strict=True):
        distances = {
            number: sum((a - b) ** 2 for a, b in zip(row[2:], true[2:], strict=True))
            for number, true in enumerate(clip.coords.tolist())
            if true[1] == row[1]
        }
        close = [number for number, distance in distances.items() if distance == min(distances.values())]
        assert any(torch.equal(feats, clip.feats[number]) for number in close)


def test_voxels_of_a_truly_empty_frame_are_left_out(clip: TrainingClip) -> None:
    inside = clip.coords[:, 1] != 1
    gone = dataclasses.replace(clip, coords=clip.coords[inside], feats=clip.feats[inside])
    assert torch.equal(on_voxels(gone, clip.coords).coords, gone.coords)
    assert torch.equal(on_voxels(gone, clip.coords).feats, gone.feats)


def test_the_nearest_is_found_among_many() -> None:
    cells = torch.randint(0, 64, (3000, 3), generator=generator())
    assert torch.equal(cells[nearest(cells, cells)], cells)


def test_most_clips_are_put_on_what_is_found(clip: TrainingClip) -> None:
    found = clip.coords[::2]
    made = guesses([clip] * 200, found)
    moved = [other for other in made if torch.equal(other.coords, found)]
    assert len(moved) == pytest.approx(200 * GUESSED, abs=25)
    assert all(torch.equal(other.feats, clip.feats[::2]) for other in moved)
    assert sum(other is clip for other in made) == 200 - len(moved)


@pytest.mark.parametrize("found", ["nothing", "everything"])
def test_a_guess_that_cannot_be_one_leaves_the_truth(clip: TrainingClip, found: str) -> None:
    everything = torch.nonzero(torch.ones(SPEC.num_frames, *[SPEC.resolution] * 3)).int()
    everything = torch.cat([torch.zeros_like(everything[:, :1]), everything], 1)
    made = guesses([clip] * 20, everything if found == "everything" else everything[:0])
    assert all(other is clip for other in made)


def test_a_real_flow_guesses_the_same_again_and_learns_nothing(clip: TrainingClip) -> None:
    roles = ("sparse_structure_flow_model", "sparse_structure_decoder")
    flow, decoder = (fresh_network(role, *SMOKE.networks[role], TORCH_OPS, seed=0) for role in roles)
    decoder.out_layer[-1].bias.data.fill_(0.1)  # so that an untrained one finds some cells and not all
    guess = StructureGuess(flow, decoder)
    first, again = (guess([clip] * 4, tokens(4), generator()) for _ in range(2))
    assert any(other is not clip for other in first)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.coords, two.coords)
        assert torch.equal(one.feats, two.feats)
    assert not any(weight.requires_grad for network in (flow, decoder) for weight in network.parameters())
