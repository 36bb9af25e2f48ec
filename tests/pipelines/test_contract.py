"""What a stage must give, and what it is given: anything else is refused, with a sentence that says whose it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from ss4d.pipelines.contract import check_result
from ss4d.pipelines.errors import PluginError
from ss4d.pipelines.implementation import Implementation, Package, Stage
from ss4d.pipelines.networks import ModelChoice, open_model
from ss4d.pipelines.registry import Registry
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.pipelines.stages import BUILT_IN, STAGES
from ss4d.stages.errors import ValueSpecError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import Clip, GaussianClip, MeshClip, Tokens, Voxels


class OtherConfig(StageConfig):
    method: Literal["other"] = "other"


def other(config: OtherConfig, inputs: StageInputs) -> Clip:
    raise AssertionError("never called")


OTHER = Implementation(stage="segmentation", config=OtherConfig, run=other)


def voxels(**changes: Any) -> Voxels:
    coords = torch.tensor([[0, 0, 1, 2, 3], [0, 1, 0, 0, 0]], dtype=torch.int32)
    return Voxels(**{"coords": coords, "latent": torch.zeros(2, 1, 1, 1, 1), "resolution": 4, **changes})


def gaussians(offsets: list[int]) -> GaussianClip:
    return GaussianClip(
        means=torch.zeros(3, 3),
        scales=torch.ones(3, 3),
        quats=torch.ones(3, 4),
        colors=torch.zeros(3, 3),
        opacities=torch.ones(3),
        offsets=torch.tensor(offsets),
    )


def meshes(**changes: Any) -> MeshClip:
    """A triangle, nothing, and two triangles that share an edge."""
    arrays = {
        "vertices": torch.rand(7, 3),
        "uv": torch.rand(7, 2),
        "faces": torch.tensor([[0, 1, 2], [0, 1, 2], [1, 3, 2]], dtype=torch.int32),
        "texture": torch.zeros(3, 4, 4, 3, dtype=torch.uint8),
        "deviation": torch.zeros(3),
        "vertex_offsets": torch.tensor([0, 3, 3, 7]),
        "face_offsets": torch.tensor([0, 1, 1, 3]),
    }
    return MeshClip(**(arrays | changes))


CLIP = Clip(
    rgb=torch.zeros(1, 2, 2, 3, dtype=torch.uint8),
    alpha=torch.zeros(1, 2, 2, dtype=torch.uint8),
    crop=torch.tensor([0, 0, 2, 2]),
    confidence=torch.ones(1),
    method="other",
    fps=24.0,
)


def rows(*numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32).reshape(-1, 5)


STRUCTURE = replace(OTHER, stage="sparse_structure", package=Package("some-stages", "1.2"))
DECODER = replace(OTHER, stage="decoding")
MESHER = replace(OTHER, stage="surface")
SURFACE = Stage(name="surface", output=MeshClip, default="other", meaning="makes meshes")
REGISTRY = Registry((*STAGES, SURFACE), BUILT_IN, ())


def check(implementation: Implementation, result: object, folder: Path, grid: int | None = None) -> None:
    check_result(implementation, REGISTRY.stage(implementation.stage), result, folder, grid)


def test_what_is_right_passes(tmp_path: Path) -> None:
    check(STRUCTURE, voxels(), tmp_path)
    check(STRUCTURE, voxels(guess=torch.zeros(2, 4, 4, 4)), tmp_path)
    check(STRUCTURE, voxels(), tmp_path, grid=4)
    check(DECODER, gaussians([0, 0, 3]), tmp_path)
    check(MESHER, meshes(), tmp_path)


@pytest.mark.parametrize(
    ("implementation", "result", "words"),
    [
        (STRUCTURE, None, "must give Voxels, but gave NoneType"),
        (STRUCTURE, Tokens(feats=torch.zeros(1, 1, 1)), "must give Voxels, but gave Tokens"),
        (STRUCTURE, {"coords": 3}, "must give Voxels, but gave dict"),
        (STRUCTURE, voxels(resolution=np.int64(4)), "Voxels.resolution must be of type int"),
        (STRUCTURE, voxels(coords=rows(), latent=torch.zeros(0, 1, 1, 1, 1)), "latent must have at least one frame"),
        (STRUCTURE, voxels(coords=rows()), "coords must have at least one row"),
        (STRUCTURE, voxels(resolution=8), "Voxels.resolution must be 4, as the model's flow .* works on; got 8"),
        (STRUCTURE, voxels(coords=rows([0, 0, 1, 2, 4])), r"coords must be .* below \(1, 2, 4, 4, 4\)"),
        (STRUCTURE, voxels(coords=rows([0, 2, 1, 2, 3])), "coords must be"),
        (STRUCTURE, voxels(coords=rows([1, 0, 1, 2, 3])), "coords must be"),
        (STRUCTURE, voxels(coords=rows([0, 0, -1, 2, 3])), "at least 0"),
        (STRUCTURE, voxels(coords=rows([0, 1, 0, 0, 0], [0, 0, 3, 3, 3])), "sorted .* row 1 is"),
        (STRUCTURE, voxels(coords=rows([0, 1, 0, 0, 0], [0, 1, 0, 0, 0])), "each once"),
        (STRUCTURE, voxels(latent=torch.full((2, 1, 1, 1, 1), torch.inf)), "latent must be finite; 2 of 2 numbers"),
        (STRUCTURE, voxels(guess=torch.zeros(3, 4, 4, 4)), "guess must be of all 2 frames or of none; it is of 3"),
        (STRUCTURE, voxels(guess=torch.zeros(2, 8, 8, 8)), "guess must be of a grid of 4 cells .*; it is of 8"),
        (
            DECODER,
            replace(gaussians([0, 3]), means=torch.tensor([[torch.nan, 0, 0]] * 3)),
            "means must be .*; 3 of 9",
        ),
        (DECODER, replace(gaussians([0, 3]), scales=torch.tensor([[0.0, 1, 1]] * 3)), "scales must lie .*; 3 of 9"),
        (DECODER, replace(gaussians([0, 3]), scales=torch.full((3, 3), 1e9)), "scales must lie .*; 9 of 9"),
        (OTHER, replace(CLIP, confidence=torch.tensor([torch.nan])), "confidence must be finite; 1 of 1"),
        (OTHER, replace(CLIP, fps=torch.inf), "fps must be finite"),
        (DECODER, gaussians([0, 2]), "offsets must rise from 0 to 3"),
        (DECODER, gaussians([0, 4, 3]), "offsets must rise"),
        (MESHER, meshes(vertex_offsets=torch.tensor([0, 3, 3, 6])), "vertex_offsets must rise from 0 to 7"),
        (MESHER, meshes(face_offsets=torch.tensor([0, 2, 1, 3])), "face_offsets must rise from 0 to 3"),
        (
            MESHER,
            meshes(vertex_offsets=torch.tensor([0, 2, 3, 7])),
            r"faces must name .* face 0 is \[0, 1, 2\], and its frame has 2 vertices",
        ),
        (MESHER, meshes(one_topology=True), "one_topology says that all frames have the same faces"),
        (MESHER, meshes(uv=torch.full((7, 2), 1.5)), "uv must lie between 0 and 1; 14 of 14"),
        (MESHER, meshes(vertices=torch.full((7, 3), torch.nan)), "vertices must be finite; 21 of 21"),
        (replace(OTHER, stage="export"), None, "must write files"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, implementation: Implementation, result: object, words: str) -> None:
    with pytest.raises(ValueSpecError, match=words) as caught:
        check(implementation, result, tmp_path, grid=4)
    assert f"the implementation 'other' of the stage {implementation.stage}" in str(caught.value)


def test_a_tensor_changed_after_its_check_is_refused(tmp_path: Path) -> None:
    wrong = voxels()
    wrong.coords.resize_(2, 4)
    with pytest.raises(ValueSpecError, match=r"Voxels.coords must be a tensor \(n, 5\).*the package|coords"):
        check(STRUCTURE, wrong, tmp_path)


def test_what_is_not_declared_is_not_given(tmp_path: Path) -> None:
    """Else it would not be in the key."""
    inputs = StageInputs(
        implementation=STRUCTURE,
        recipe={},
        source=tmp_path,
        input_config=InputConfig(),
        results={},
        model=open_model(ModelChoice(model="bundled:tiny"), "cpu"),
        seed=1,
        folder=tmp_path,
        progress=lambda done, total: None,
    )
    asked: list[tuple[Callable[[], object], str]] = [
        (inputs.video, "source=True"),
        (inputs.generator, "seeded=True"),
        (lambda: inputs.network("slat_flow_model"), "roles with 'slat_flow_model'"),
        (lambda: inputs.value("segmentation", Clip), "inputs with 'segmentation'"),
    ]
    taking = replace(inputs, results={"segmentation": Tokens(feats=torch.zeros(1, 1, 1))})
    with pytest.raises(PluginError, match="asks segmentation for Clip, but it gives Tokens"):
        taking.value("segmentation", Clip)
    with pytest.raises(PluginError, match="asks segmentation for files, but it gives Tokens"):
        taking.files("segmentation")
    with pytest.raises(PluginError, match="asks segmentation for a value, but it gives files"):
        replace(inputs, results={"segmentation": {}}).value("segmentation")
    for ask, words in asked:
        with pytest.raises(PluginError, match=f"package some-stages 1.2 uses what it does not declare.*{words}"):
            ask()
