"""The column encoder: a token belongs to the column behind its pixels, and unfolds to the cells of that column."""

import pytest
import torch

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.column_encoder import ColumnEncoder, ColumnEncoderArgs, lifted

ARGS = ColumnEncoderArgs(image_size=32, resolution=8, cell_channels=2, channels=(8, 16), patch_size=4)


def encoder(args: ColumnEncoderArgs = ARGS) -> ColumnEncoder:
    torch.manual_seed(0)
    return ColumnEncoder(args).eval()


def test_tokens_are_normalized_over_channels_and_independent_of_other_images() -> None:
    images = torch.rand(3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens, pitch = encoder().tokens(images)
        alone = encoder()(images[1:2])
    assert tokens.shape == (3, 64, 16)
    assert pitch.shape == (3,)
    assert torch.allclose(tokens.mean(-1), torch.zeros(3, 64), atol=1e-5)
    assert torch.allclose(tokens.var(-1, correction=0), torch.ones(3, 64), atol=1e-2)
    assert torch.allclose(alone[0], tokens[1], atol=1e-5)


@pytest.mark.parametrize(("x", "z"), [(1, 1), (6, 1), (1, 6), (6, 6)])
def test_a_token_hears_most_of_the_pixels_before_its_column(x: int, z: int) -> None:
    """From left to right the columns' x rises in the image, from the bottom up their z."""
    images = torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    encoder()(images)[0, x * 8 + z].square().mul(torch.arange(16.0)).sum().backward()
    assert images.grad is not None
    heard = images.grad[0].abs().sum(0)
    left, right = heard[:, :16].sum(), heard[:, 16:].sum()
    above, below = heard[:16].sum(), heard[16:].sum()
    assert bool(left > right) == (x < 4)
    assert bool(below > above) == (z < 4)


def test_tokens_unfold_to_the_cells_of_their_columns() -> None:
    x, z, y, k = torch.meshgrid(*map(torch.arange, (3, 3, 3, 2)), indexing="ij")
    named = x * 1000 + y * 100 + z * 10 + k
    volume = lifted(named.reshape(1, 9, 6), 3)
    assert volume.shape == (1, 3, 3, 3, 2)
    assert int(volume[0, 2, 0, 1, 1]) == 2011


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="32 x 32"):
        encoder()(torch.zeros(1, 3, 32, 32))
    for change in ({"resolution": 16}, {"channels": (8, 12)}, {"image_size": 36}):
        with pytest.raises(ModelError):
            ColumnEncoder(ColumnEncoderArgs(**{**vars(ARGS), **change}))
