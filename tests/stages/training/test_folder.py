"""Training starts from any model folder that a run takes, and finds fault with one in the same words."""

import json
import shutil
from pathlib import Path

import pytest

from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.nn.latent_flow import SLatFlow4DModel
from ss4d.stages.roles import GAUSSIAN_DECODER, LATENT_FLOW
from ss4d.stages.sampler_params import SamplerParams
from ss4d.stages.training.folder import Start
from ss4d.stages.training.options import TrainOptions
from ss4d.stages.training.tiny import PUBLISHED
from ss4d.stages.training.training import training_of


@pytest.fixture
def lenient(model_folder: Path, tmp_path: Path) -> Path:
    """A model folder that leaves out whatever it can, and has what nothing reads."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "lenient"))
    pipeline = json.loads((folder / "pipeline.json").read_text())
    pipeline.update(name="TrellisImageTo3DPipeline", version="1.0")
    pipeline["args"]["models"].update(slat_decoder_mesh="ckpts/not_here")
    pipeline["args"]["sparse_structure_sampler"].update(params={})
    pipeline["args"]["slat_sampler"].update(name="FlowEulerSampler", params={"steps": 7})
    (folder / "pipeline.json").write_text(json.dumps(pipeline))
    for description in (folder / "ckpts").glob("slat_*.json"):
        network = json.loads(description.read_text())
        network["name"] = "Elastic" + network["name"]
        for option in ("rope_base", "num_io_res4d_blocks", "use_skip_connection", "use_checkpoint"):
            network["args"].pop(option, None)
        description.write_text(json.dumps(network))
    return folder


def start_from(folder: Path) -> Start:
    options = TrainOptions(recipe="smoke", out=folder.parent, device="cpu", init=str(folder))
    start = training_of(options, lambda path: ModelFolder.open(Path(path)), print).start
    assert start is not None
    return start


def test_what_a_folder_leaves_out_is_the_authors_here_too(lenient: Path) -> None:
    start = start_from(lenient)
    assert start.origin == "lenient"
    assert start.networks.keys() == PUBLISHED.keys()
    assert start.structure_sampler == SamplerParams()
    assert start.slat_sampler == SamplerParams(steps=7, cfg_strength=0.0)
    flow = start.networks[LATENT_FLOW]
    assert isinstance(flow, SLatFlow4DModel)
    assert (flow.args.rope_base, flow.args.use_skip_connection) == (10000.0, True)
    for network in start.networks.values():
        assert network.training
        assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("role", "options", "sentence"),
    [
        (LATENT_FLOW, {"dropout": 0.1}, r"slat_flow_model\.json: option args\.dropout is not supported"),
        (LATENT_FLOW, {"num_blocks": "3"}, r"slat_flow_model\.json: option args\.num_blocks must be a whole number"),
        (GAUSSIAN_DECODER, {"num_blocks": 3}, r"slat_decoder_gs\.safetensors lacks tensor .blocks\.2\."),
    ],
)
def test_an_option_that_cannot_be_is_named(lenient: Path, role: str, options: dict[str, object], sentence: str) -> None:
    description = lenient / "ckpts" / f"{role}.json"
    network = json.loads(description.read_text())
    network["args"].update(options)
    description.write_text(json.dumps(network))
    with pytest.raises(ModelError, match=sentence):
        start_from(lenient)
