"""Networks of model folders: what is written is read back, and whatever is wrong is named."""

import json
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import IMAGE_ENCODER, ModelFolder, NetworkFiles
from ss4d.stages.nn.checkpoint import NETWORKS, save_network
from ss4d.stages.nn.image_encoders import VisionTransformer
from ss4d.stages.nn.occupancy import SparseStructureDecoder
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.precision import Precision
from ss4d.stages.tensor_file import TensorFile
from ss4d.stages.weights import Description, check_role, describe, load_network, load_role, weights_size
from tests.helpers.places import DATA
from tests.helpers.small_folder import DECODER, ENCODER, ROLE, edit_json, pipeline

pytest_plugins = ["tests.helpers.small_folder"]

CPU = torch.device("cpu")
OFFICIAL = json.loads((DATA / "official_layout.json").read_text())  # of the published model


def edit_tensors(file: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = {name: tensor.clone() for name, tensor in load_file(file).items()}
    edit(state)
    save_file(state, file)


def load(folder: Path, role: str = ROLE) -> torch.nn.Module:
    return load_role(ModelFolder.open(folder), role, TORCH_OPS, device=CPU)


def test_a_saved_network_loads_with_every_tensor_and_option(folder: Path) -> None:
    torch.manual_seed(3)
    original = SparseStructureDecoder(DECODER)
    save_network(folder / "ckpts/decoder", "SparseStructureDecoder", DECODER, original)
    loaded = load(folder)
    assert loaded.args == DECODER
    assert not loaded.training
    assert loaded.state_dict().keys() == original.state_dict().keys()
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_weights_are_for_the_same_readers_as_their_description(folder: Path) -> None:
    for description in (folder / "ckpts").glob("*.json"):
        assert description.with_suffix(".safetensors").stat().st_mode == description.stat().st_mode


def test_half_precision_files_load_as_float32(folder: Path) -> None:
    original = SparseStructureDecoder(DECODER)
    save_network(folder / "ckpts/decoder", "SparseStructureDecoder", DECODER, original, torch.float16)
    assert {t.dtype for t in load_file(folder / "ckpts/decoder.safetensors").values()} == {torch.float16}
    state = load(folder).state_dict()
    for name, tensor in original.state_dict().items():
        assert torch.equal(state[name], tensor.half().float())


def test_the_torso_alone_takes_the_precision_asked_for(folder: Path) -> None:
    encoder = load_role(ModelFolder.open(folder), IMAGE_ENCODER, TORCH_OPS, device=CPU, precision="bfloat16")
    assert encoder.torso_dtype == torch.bfloat16
    half = {name for name, tensor in encoder.state_dict().items() if tensor.dtype == torch.bfloat16}
    linear = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert half == {f"blocks.{i}.{name}.{kind}" for i in range(2) for name in linear for kind in ("weight", "bias")}
    decoder = load_role(ModelFolder.open(folder), ROLE, TORCH_OPS, device=CPU, precision="bfloat16")
    assert {tensor.dtype for tensor in decoder.state_dict().values()} == {torch.float32}  # it has no transformer


@pytest.mark.parametrize(("fp16", "dtype"), [(True, torch.float16), (False, torch.float32)])
def test_published_precision_is_what_each_network_says(folder: Path, fp16: bool, dtype: torch.dtype) -> None:
    edit_json(folder / "ckpts/decoder.json", lambda d: d["args"].update(use_fp16=fp16))
    decoder = load_role(ModelFolder.open(folder), ROLE, TORCH_OPS, device=CPU, precision="published")
    dtypes = {name: tensor.dtype for name, tensor in decoder.state_dict().items()}
    assert {d for name, d in dtypes.items() if ".conv" in name} == {dtype}
    assert {d for name, d in dtypes.items() if ".conv" not in name} == {torch.float32}
    encoder = load_role(ModelFolder.open(folder), IMAGE_ENCODER, TORCH_OPS, device=CPU, precision="published")
    assert {tensor.dtype for tensor in encoder.state_dict().values()} == {torch.float32}


def test_an_occupancy_decoder_in_half_precision_gives_nearly_the_same(folder: Path) -> None:
    edit_json(folder / "ckpts/decoder.json", lambda d: d["args"].update(use_fp16=True))
    half = load_role(ModelFolder.open(folder), ROLE, TORCH_OPS, device=CPU, precision="published")
    latent = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    given, wanted = half(latent), load(folder)(latent)
    assert given.dtype == torch.float32
    assert 0 < (given - wanted).abs().max() < 5e-3 * wanted.abs().max()


def test_what_nothing_reads_in_a_pipeline_does_not_matter(folder: Path) -> None:
    def add(content: Any) -> None:
        content.update(name="TrellisImageTo3DPipeline", version="1.0")
        content["args"].update(rembg=None)
        content["args"]["models"].update(slat_decoder_mesh="ckpts/not_here")

    edit_json(folder / "pipeline.json", add)
    assert load(folder).args == DECODER


def test_an_elastic_class_is_the_plain_one(folder: Path) -> None:
    edit_json(folder / "ckpts/decoder.json", lambda d: d.update(name="Elastic" + d["name"]))
    assert isinstance(load(folder), SparseStructureDecoder)


def rename(state: dict[str, torch.Tensor]) -> None:
    state["input_layer.weights"] = state.pop("input_layer.weight")


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda s: s.pop("out_layer.2.bias"), r"decoder\.safetensors lacks tensor 'out_layer\.2\.bias'"),
        (rename, "lacks tensor 'input_layer.weight'"),
        (
            lambda s: s.update({"input_layer.bias": torch.zeros(9)}),
            r"decoder\.safetensors: tensor 'input_layer\.bias' is \(9,\) .* needs \(8,\)",
        ),
        (
            lambda s: s.update({"input_layer.bias": torch.zeros(8, dtype=torch.int32)}),
            "tensor 'input_layer.bias' is .* of I32",
        ),
    ],
)
def test_a_wrong_tensor_is_named_with_its_file(folder: Path, edit: Any, expected: str) -> None:
    edit_tensors(folder / "ckpts/decoder.safetensors", edit)
    with pytest.raises(ModelError, match=expected):
        load(folder)


def test_a_tensor_too_many_is_named_in_a_warning_and_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_tensors(folder / "ckpts/decoder.safetensors", lambda s: s.update(extra=torch.zeros(1, dtype=torch.int32)))
    assert "extra" not in load(folder).state_dict()
    assert re.search(r"decoder\.safetensors holds tensors that .*: extra$", caplog.messages[0])


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_truncated_weights_file_is_named(folder: Path, keep: int) -> None:
    file = folder / "ckpts/decoder.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"decoder\.safetensors cannot be read as safetensors, fetch it again"):
        load(folder)


@pytest.mark.parametrize("missing", ["pipeline.json", "ckpts/decoder.json", "ckpts/decoder.safetensors"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=missing):
        load(folder)


@pytest.mark.parametrize("file", ["pipeline.json", "ckpts/decoder.json"])
def test_bad_json_is_named(folder: Path, file: str) -> None:
    (folder / file).write_text('{"name": ')
    with pytest.raises(ModelError, match=rf"{file}: Invalid JSON"):
        load(folder)


def test_a_network_that_cannot_play_its_role_is_named(folder: Path) -> None:
    edit_json(folder / "pipeline.json", lambda d: d["args"].update(image_cond_model="ckpts/decoder"))
    with pytest.raises(
        ModelError, match=r"decoder\.json: a SparseStructureDecoder cannot be the image_cond_model, .* or "
    ):
        load(folder, IMAGE_ENCODER)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda d: d.update(name="Transformer9"), "class 'Transformer9' is unknown"),
        (lambda d: d["args"].update(dropout=0.1), r"decoder\.json: option args\.dropout"),
        (lambda d: d["args"].update(num_res_blocks="two"), r"decoder\.json: option args\.num_res_blocks.*'two'"),
        (lambda d: d["args"].update(num_res_blocks=True), r"decoder\.json: option args\.num_res_blocks"),
        (lambda d: d["args"].pop("channels"), r"decoder\.json: option args\.channels"),
        (lambda d: d["args"].update(norm_type="group"), r"decoder\.json: option norm_type is 'group'"),
        (lambda d: d["args"].update(channels=[]), r"decoder\.json: option channels is empty"),
        (lambda d: d["args"].update(num_res_blocks=10**9), r"decoder\.json: option num_res_blocks is 1000000000, but"),
        (lambda d: d["args"].update(channels=[10**18, 4]), r"decoder\.json: options of this size make no network"),
        (lambda d: d["args"].update(channels=[10**20, 4]), r"decoder\.json: option args\.channels\.0 must be a whole"),
        (lambda d: d["args"].update(channels=[8, 0]), r"decoder\.json: option channels is \(8, 0\)"),
    ],
)
def test_a_wrong_network_option_is_named_with_its_file(folder: Path, edit: Any, expected: str) -> None:
    edit_json(folder / "ckpts/decoder.json", edit)
    with pytest.raises(ModelError, match=expected):
        load(folder)


def test_the_hubs_names_for_dinov2_load_and_a_lost_key_is_named(tmp_path: Path) -> None:
    encoder = VisionTransformer(ENCODER)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in encoder.state_dict().items():
        for new, old in (
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("blocks.", "encoder.layer."),
            ("attn.proj", "attention.output.dense"),
            ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
        ):
            name = name.replace(new, old)
        name = "embeddings." + name if name.endswith(("_token", "_tokens")) else name
        name = "layer" + name if name.startswith("norm.") else name
        parts = dict(zip(("query", "key", "value"), tensor.chunk(3), strict=True)) if "qkv" in name else {"": tensor}
        state |= {name.replace("attn.qkv", f"attention.attention.{part}"): t.clone() for part, t in parts.items()}
    description = Description("VisionTransformer", ENCODER)
    files = NetworkFiles(weights=tmp_path / "model.safetensors", description=None)
    save_file(state, files.weights)
    loaded = load_network(description, files, TORCH_OPS, device=CPU).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in encoder.state_dict().items())

    del state["encoder.layer.1.attention.attention.key.weight"]
    save_file(state, files.weights)
    with pytest.raises(ModelError, match=r"lacks tensor 'blocks\.1\.attn\.qkv\.weight'"):
        load_network(description, files, TORCH_OPS, device=CPU)


def test_tensors_are_read_one_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[weakref.ref[torch.Tensor]] = []

    class Watched:
        """An opened file whose tensors must be gone before the next is read."""

        def __init__(self, path: Path, framework: str) -> None:
            self._file = safe_open(path, framework)

        def __enter__(self) -> "Watched":
            self._file.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self._file.__exit__(*error)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def get_tensor(self, name: str) -> torch.Tensor:
            assert all(ref() is None for ref in read)
            tensor = self._file.get_tensor(name)
            read.append(weakref.ref(tensor))
            return tensor

    monkeypatch.setattr("ss4d.stages.tensor_file.safe_open", Watched)
    decoder = load_role(ModelFolder.open(folder), ROLE, TORCH_OPS, device=CPU, precision="published")
    assert len(read) == len(decoder.state_dict())
    assert all(ref() is None for ref in read)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_size_of_a_network_is_known_from_the_heads_of_its_files(folder: Path, precision: Precision) -> None:
    model = ModelFolder.open(folder)
    for role in (ROLE, IMAGE_ENCODER):
        network = load_role(model, role, TORCH_OPS, device=CPU, precision=precision)
        size = sum(tensor.nbytes for tensor in network.state_dict().values())
        assert check_role(model, role, precision) == size
        assert weights_size(model, role, precision) == size


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        TensorFile(tmp_path)


@pytest.mark.parametrize("role", OFFICIAL)
def test_the_published_sizes_have_the_published_tensors(tmp_path: Path, role: str) -> None:
    (tmp_path / "pipeline.json").write_text(json.dumps(pipeline()))
    edit_json(tmp_path / "pipeline.json", lambda d: d["args"]["models"].update({role: role}))
    network = {key: OFFICIAL[role][key] for key in ("name", "args")}
    (tmp_path / f"{role}.json").write_text(json.dumps(network))
    (tmp_path / f"{role}.safetensors").touch()
    description = describe(ModelFolder.open(tmp_path).description(role))
    with torch.device("meta"):
        module = NETWORKS[description.name].build(description.args, TORCH_OPS)
    assert {name: list(tensor.shape) for name, tensor in module.state_dict().items()} == OFFICIAL[role]["tensors"]
