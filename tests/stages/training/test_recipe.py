"""What the recipes make: networks that can be built and fit each other, of the sizes that the guide tells."""

import pytest
import torch

from ss4d.stages.nn.checkpoint import build_network
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_ENCODER, LATENT_FLOW, STRUCTURE_FLOW
from ss4d.stages.training.recipe import RECIPES, SMALL, TINY, PoolPlan
from ss4d.stages.training.tiny import PUBLISHED

IN_THE_GUIDE = 83e6  # parameters of `small`


def test_small_has_the_parameters_that_the_guide_tells() -> None:
    with torch.device("meta"):
        networks = [build_network(*SMALL.networks[role], TORCH_OPS) for role in PUBLISHED]
    count = sum(weight.numel() for network in networks for weight in network.parameters())
    assert count == pytest.approx(IN_THE_GUIDE, rel=0.01)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_networks_of_a_recipe_fit_each_other(recipe) -> None:  # type: ignore[no-untyped-def]
    sizes = {role: options for role, (_, options) in recipe.networks.items()}
    eyes, structure, latents = (sizes[role] for role in (IMAGE_ENCODER, STRUCTURE_FLOW, LATENT_FLOW))
    cells, features = eyes["resolution"], eyes["cell_channels"]
    assert {sizes[role]["resolution"] for role in (LATENT_FLOW, LATENT_ENCODER, GAUSSIAN_DECODER)} == {cells}
    assert structure["cond_channels"] == latents["cond_channels"] == cells * features
    assert structure["in_channels"] - structure["out_channels"] == (cells // structure["resolution"]) ** 3 * features
    assert latents["in_channels"] - latents["out_channels"] == features
    assert recipe.plans.keys() == SMALL.plans.keys()


@pytest.mark.parametrize("recipe", [TINY, SMALL], ids=lambda recipe: recipe.name)
def test_short_clips_are_parts_of_longer_ones(recipe) -> None:  # type: ignore[no-untyped-def]
    # What moves for two frames alone fills the crop, which it never does in use.
    assert all((plan.pool.span or plan.pool.num_frames) >= 8 for plan in recipe.plans.values())


def test_what_a_training_is_known_by_does_not_change_with_options_that_are_not_used() -> None:
    assert PoolPlan(size=3, num_frames=8).decides() == {
        "size": 3,
        "num_frames": 8,
        "num_views": 1,
        "view_size": 8,
        "first": 0,
    }
    assert PoolPlan(size=3, num_frames=2, span=16).decides()["span"] == 16
