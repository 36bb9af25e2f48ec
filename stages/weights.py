"""Loads the networks of a model folder, strict about options and weights (docs/model.md, section 1)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import DINOV2_FILE, DINOV2_REPOSITORY, ModelFolder, NetworkFiles
from ss4d.stages.nn.checkpoint import NETWORKS, network_args
from ss4d.stages.nn.image_encoders import DINOV2_VITL14_REG
from ss4d.stages.nn.occupancy import SparseStructureDecoderArgs, SparseStructureEncoderArgs
from ss4d.stages.ops.backend import Ops
from ss4d.stages.precision import Precision
from ss4d.stages.typed_json import naming, read_json

LOG = logging.getLogger("ss4d")
LeftOver = Callable[[Path, Sequence[str]], None]  # hears of a weights file and the tensors in it that nothing takes


@runtime_checkable
class HasTorso(Protocol):
    """A network with a torso, which may run in another precision than the rest."""

    def set_torso_dtype(self, dtype: torch.dtype) -> None: ...


@runtime_checkable
class HasComputed(Protocol):
    """A network with buffers that follow from its options, so that a file may leave them out."""

    def computed(self) -> dict[str, Tensor]: ...


# The hub's names for DINOv2's tensors, replaced in this order; query, key and value are joined besides.
DINOV2_HUB_NAMES = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)


@dataclass(frozen=True)
class Description:
    """What the description of a network says, checked."""

    name: str  # class name, a key of NETWORKS
    args: Any  # an instance of that class's options


@dataclass(frozen=True, kw_only=True)
class _Network:
    name: str
    args: dict[str, Any]


def describe(files: NetworkFiles) -> Description:
    """What the description among `files` says of its network.

    Raises:
        ModelError: naming the file and the option at fault.
    """
    if files.description is None:
        return Description("VisionTransformer", DINOV2_VITL14_REG)
    network = read_json(files.description, _Network)
    name = network.name.removeprefix("Elastic")
    with naming(files.description):
        return Description(name, network_args(name, network.args, "args"))


def warn_of_left_over(file: Path, tensors: Sequence[str]) -> None:
    """Names in a warning the tensors of a weights file that nothing takes."""
    LOG.warning("%s holds tensors that belong to no part and are left out: %s", file, ", ".join(tensors))


def torso_dtype(description: Description, precision: Precision) -> torch.dtype:
    """What a network's torso computes in; "float16" and "bfloat16" speak of transformers alone."""
    if precision == "published":
        return torch.float16 if getattr(description.args, "use_fp16", False) else torch.float32
    if isinstance(description.args, SparseStructureDecoderArgs | SparseStructureEncoderArgs):
        return torch.float32
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def load_role(
    folder: ModelFolder,
    role: str,
    ops: Ops,
    *,
    device: torch.device,
    precision: Precision = "float32",
    left_over: LeftOver = warn_of_left_over,
) -> nn.Module:
    """The network that plays `role` in `folder`, in eval mode on `device`, without gradients.

    Weights are float32 whatever the file holds, but for those of the torso, see `torso_dtype`.

    Raises:
        ModelError: naming the file and the tensor or option at fault.
    """
    files = folder.files(role)
    description = describe(files)
    module = load_network(description, files, ops, device=device, left_over=left_over)
    if isinstance(module, HasTorso):
        module.set_torso_dtype(torso_dtype(description, precision))
    return module.eval().requires_grad_(False)


def load_network(
    description: Description,
    files: NetworkFiles,
    ops: Ops,
    *,
    device: torch.device,
    left_over: LeftOver = warn_of_left_over,
) -> nn.Module:
    """The network of a description, its weights from its file, all in float32 on `device`.

    Raises:
        ModelError: naming the file and the tensor or option at fault.
    """
    with naming(files.description), torch.device("meta"):  # the file brings every tensor: none is made or held twice
        module = NETWORKS[description.name].build(description.args, ops)
    state = read_tensors(files.weights, device)
    if "embeddings.cls_token" in state:
        state = dinov2_from_hub(state)
    wanted = module.state_dict()
    if isinstance(module, HasComputed):
        state = {name: tensor.to(device) for name, tensor in module.computed().items()} | state
    if unused := sorted(state.keys() - wanted.keys()):
        left_over(files.weights, unused)
    _check_tensors(description.name, files.weights, wanted, state)
    module.load_state_dict({name: state[name].float() for name in wanted}, strict=True, assign=True)
    left = [name for name, tensor in chain(module.named_parameters(), module.named_buffers()) if tensor.is_meta]
    assert not left, f"{description.name} keeps {left} out of its state, so no file can bring them"
    return module


def read_tensors(file: Path, device: torch.device) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, on `device`.

    Raises:
        ModelError: if the file is missing, damaged, or of another format.
    """
    if file.suffix in {".pth", ".pt", ".bin", ".ckpt", ".pkl"}:
        raise ModelError(
            f"{file} is a pickle, which can run any code when read: give the safetensors file of the hub instead "
            f"(for the image encoder {DINOV2_FILE} of {DINOV2_REPOSITORY})"
        )
    try:
        return load_file(file, device=str(device))
    except FileNotFoundError as error:
        raise ModelError(f"{file} is missing from the model folder") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} cannot be read as safetensors, fetch it again: {error}") from error


def dinov2_from_hub(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's tensors under its own names, from the names that the hub's safetensors give them."""
    renamed = {}
    for name, tensor in state.items():
        for old, new in DINOV2_HUB_NAMES:
            name = name.replace(old, new)
        renamed[name] = tensor
    for query in [name for name in renamed if ".attention.attention.query." in name]:
        parts = [query.replace("query", part) for part in ("query", "key", "value")]
        if all(part in renamed for part in parts):  # else the missing tensor is named by the strict check
            joined = query.replace("attention.attention.query", "attn.qkv")
            renamed[joined] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def _check_tensors(network: str, file: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuses a file that lacks a tensor of the network, or has it in another shape."""
    if missing := sorted(wanted.keys() - given.keys()):
        raise ModelError(f"{file} lacks {_listed(missing)}, which {network} needs")
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape or not given[name].is_floating_point():
            raise ModelError(
                f"{file}: tensor {name!r} is {tuple(given[name].shape)} of {given[name].dtype}, "
                f"but {network} needs {tuple(tensor.shape)} of floating point"
            )


def _listed(names: list[str]) -> str:
    return f"tensor {names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
