"""What the recipes make: networks that can be built and fit each other, of the sizes that the guide tells."""

import pytest
import torch

from ss4d.stages.nn.checkpoint import build_network
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_ENCODER, LATENT_FLOW, STRUCTURE_FLOW
from ss4d.stages.training.recipe import RECIPES, SMALL
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
