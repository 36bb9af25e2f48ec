"""Loads the networks of a model folder, strict about options and weights (docs/model.md, section 1)."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import ModelFolder, NetworkFiles
from ss4d.stages.nn.arithmetic import image_tokens
from ss4d.stages.nn.checkpoint import NETWORKS, network_args
from ss4d.stages.nn.column_encoder import ColumnEncoderArgs
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoderArgs
from ss4d.stages.nn.image_encoders import DINOV2_VITL14_REG, VisionTransformerArgs
from ss4d.stages.nn.latent_flow import SLatFlow4DModelArgs
from ss4d.stages.nn.occupancy import SparseStructureDecoderArgs, SparseStructureEncoderArgs
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModelArgs
from ss4d.stages.ops.backend import TORCH_OPS, Ops
from ss4d.stages.precision import Precision
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.tensor_file import TensorFile
from ss4d.stages.typed_json import naming, read_json

LOG = logging.getLogger("ss4d")
MOST_TENSORS = 10_000  # of a network whose file is not looked at; published ones have 700
MOST_COMPUTED = 1 << 30  # bytes of a tensor that follows from the options; published ones have 16 MiB at most
LeftOver = Callable[[Path, Sequence[str]], None]  # hears of a weights file and the tensors in it that nothing takes


@runtime_checkable
class HasTorso(Protocol):
    """A network with a torso, which may run in another precision than the rest."""

    def set_torso_dtype(self, dtype: torch.dtype) -> None: ...


@runtime_checkable
class HasComputed(Protocol):
    """A network with buffers that follow from its options, so that a file may leave them out."""

    def computed(self) -> dict[str, Callable[[], Tensor]]: ...


# What can play a role; the roles of installed stages are their own matter.
ARGS_BY_ROLE: Mapping[str, tuple[type, ...]] = {
    IMAGE_ENCODER: (VisionTransformerArgs, ColumnEncoderArgs),
    STRUCTURE_FLOW: (SparseStructureFlow4DModelArgs,),
    STRUCTURE_DECODER: (SparseStructureDecoderArgs,),
    LATENT_FLOW: (SLatFlow4DModelArgs,),
    GAUSSIAN_DECODER: (SLatGaussianDecoderArgs,),
}
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


def describe(file: Path | None) -> Description:
    """What the description of a network says; without a file, that of DINOv2.

    Raises:
        ModelError: naming the file and the option at fault.
    """
    if file is None:
        return Description("VisionTransformer", DINOV2_VITL14_REG)
    network = read_json(file, _Network)
    name = network.name.removeprefix("Elastic")
    with naming(file):
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
    files, description = _described(folder, role)
    torso = torso_dtype(description, precision)
    module = load_network(description, files, ops, device=device, torso=torso, left_over=left_over)
    return module.eval().requires_grad_(False)


def check_role(folder: ModelFolder, role: str, precision: Precision, *, left_over: LeftOver = warn_of_left_over) -> int:
    """Whether the network that plays `role` in `folder` can be loaded, from the heads of its files.

    Returns:
        The bytes that its weights take once they are loaded.

    Raises:
        ModelError: naming the file and the tensor or option at fault.
    """
    files, description = _described(folder, role)
    outline = _outline(description, files, TORCH_OPS, torso_dtype(description, precision), left_over)
    return sum(tensor.nbytes for tensor in outline.wanted.values())


def _described(folder: ModelFolder, role: str) -> tuple[NetworkFiles, Description]:
    """The files of the network that plays `role`, and its description, which fits what pipeline.json says of it.

    Raises:
        ModelError: naming the file and the option at fault.
    """
    files = folder.files(role)
    description = _describe_as(role, files.description)
    given = len(folder.slat_normalization.mean)
    if isinstance(description.args, SLatFlow4DModelArgs) and given not in (1, description.args.out_channels):
        raise ModelError(
            f"{folder.path / 'pipeline.json'}: option args.slat_normalization has {given} means, but the latents of "
            f"{role} have {description.args.out_channels} channels"
        )
    return files, description


def weights_size(folder: ModelFolder, role: str, precision: Precision) -> int:
    """Bytes that the weights of the network that plays `role` take once they are loaded, by its description alone.

    Raises:
        ModelError: naming the file and the option at fault.
    """
    file = folder.description(role)
    description = _describe_as(role, file)
    with naming(file):
        module = _without_weights(description, TORCH_OPS, MOST_TENSORS)
    if isinstance(module, HasTorso):
        module.set_torso_dtype(torso_dtype(description, precision))
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def frame_tokens(folder: ModelFolder) -> int:
    """How many image tokens a frame has, by the description of the image encoder.

    Raises:
        ModelError: naming the file and the option at fault.
    """
    return image_tokens(_describe_as(IMAGE_ENCODER, folder.description(IMAGE_ENCODER)).args)


def _describe_as(role: str, file: Path | None) -> Description:
    """What the description of the network that plays `role` says.

    Raises:
        ModelError: naming the file and the option at fault.
    """
    description = describe(file)
    kinds = ARGS_BY_ROLE.get(role, (object,))
    if not isinstance(description.args, kinds):
        known = " or ".join(name for name, network in NETWORKS.items() if network.args in kinds)
        raise ModelError(f"{file}: a {description.name} cannot be the {role}, which takes a {known}")
    return description


def load_network(
    description: Description,
    files: NetworkFiles,
    ops: Ops,
    *,
    device: torch.device,
    torso: torch.dtype = torch.float32,
    left_over: LeftOver = warn_of_left_over,
) -> nn.Module:
    """The network of a description, its weights from its file, on `device`: float32, but for those of a torso.

    Tensors are read and brought to their precision one at a time.

    Raises:
        ModelError: naming the file and the tensor or option at fault.
    """
    outline = _outline(description, files, ops, torso, left_over)
    module, state = outline.module, {}
    for name, tensor in outline.wanted.items():
        if name in outline.sources:
            state[name] = outline.file.read(outline.sources[name], device, tensor.dtype)
        else:
            state[name] = outline.computed[name]().to(device, tensor.dtype)
    module.load_state_dict(state, strict=True, assign=True)
    left = [name for name, tensor in chain(module.named_parameters(), module.named_buffers()) if tensor.is_meta]
    assert not left, f"{description.name} keeps {left} out of its state, so no file can bring them"
    return module


@dataclass(frozen=True, eq=False, kw_only=True)
class _Outline:
    """A network without weights, and where each of them is to come from.

    Attributes:
        module: on the meta device.
        wanted: its tensors, of the shape and precision that they have once they are loaded.
        file: with the weights.
        sources: by the name of a tensor, the tensors in the file that make it up.
        computed: gives the tensors that follow from the network's options.
    """

    module: nn.Module
    wanted: Mapping[str, Tensor]
    file: TensorFile
    sources: Mapping[str, tuple[str, ...]]
    computed: Mapping[str, Callable[[], Tensor]]


def _outline(
    description: Description, files: NetworkFiles, ops: Ops, torso: torch.dtype, left_over: LeftOver
) -> _Outline:
    """What is to be loaded, checked against the file's head.

    Raises:
        ModelError: naming the file and the tensor or option at fault.
    """
    file = TensorFile(files.weights)
    with naming(files.description):
        module = _without_weights(description, ops, len(file.shapes))
    if isinstance(module, HasTorso):
        module.set_torso_dtype(torso)
    names = dinov2_from_hub(file.shapes) if "embeddings.cls_token" in file.shapes else {n: (n,) for n in file.shapes}
    outline = _Outline(
        module=module,
        wanted=module.state_dict(),
        file=file,
        sources=names,
        computed=module.computed() if isinstance(module, HasComputed) else {},
    )
    if unused := sorted(outline.sources.keys() - outline.wanted.keys()):
        left_over(files.weights, unused)
    _check_tensors(description.name, outline)
    _check_computed(files, outline)
    return outline


def _without_weights(description: Description, ops: Ops, num_tensors: int) -> nn.Module:
    """The network on the meta device: its file, of so many tensors, brings them all, and none is made or held twice.

    Raises:
        ModelError: naming the option that no file of so many tensors can have, or that no memory could hold.
    """
    args = description.args
    for name in (field.name for field in fields(args) if field.name.startswith("num_") and "blocks" in field.name):
        if (getattr(args, name) or 0) > num_tensors:
            raise ModelError(f"option {name} is {getattr(args, name)}, but its weights are {num_tensors} tensors")
    try:
        with torch.device("meta"):
            return NETWORKS[description.name].build(args, ops)
    except RuntimeError as error:  # the bytes of a tensor are more than torch can count
        raise ModelError(f"options of this size make no network: {error}") from error


def dinov2_from_hub(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """For each of DINOv2's own names the names that the hub's safetensors give the tensors that make it up.

    Args:
        names: in the file.
    """
    sources: dict[str, tuple[str, ...]] = {}
    for given in names:
        own = given
        for old, new in DINOV2_HUB_NAMES:
            own = own.replace(old, new)
        sources[own] = (given,)
    for query in [name for name in sources if ".attention.attention.query." in name]:
        parts = [query.replace("query", part) for part in ("query", "key", "value")]
        if all(part in sources for part in parts):  # else the missing tensor is named by the strict check
            joined = query.replace("attention.attention.query", "attn.qkv")
            sources[joined] = tuple(given for part in parts for given in sources.pop(part))
    return sources


def _check_tensors(network: str, outline: _Outline) -> None:
    """Refuses a file that lacks a tensor of the network, or has it in another shape."""
    file, sources = outline.file, outline.sources
    if missing := sorted(outline.wanted.keys() - sources.keys() - outline.computed.keys()):
        raise ModelError(f"{file.path} lacks {_listed(missing)}, which {network} needs")
    for name, tensor in outline.wanted.items():
        if name not in sources:
            continue
        shapes = [file.shapes[part] for part in sources[name]]
        shape = shapes[0]
        if len(shapes) > 1:  # joined along the first axis
            fit = all(shapes) and len({shape[1:] for shape in shapes}) == 1
            shape = (sum(shape[0] for shape in shapes), *shape[1:]) if fit else ()
        if shape != tensor.shape or not all(map(file.is_floating, sources[name])):
            raise ModelError(
                f"{file.path}: tensor {name!r} is {shape} of {file.formats[sources[name][0]]}, "
                f"but {network} needs {tuple(tensor.shape)} of floating point"
            )


def _check_computed(files: NetworkFiles, outline: _Outline) -> None:
    """Refuses tensors that would be computed, since the file leaves them out, and that no memory could hold."""
    for name in outline.computed.keys() - outline.sources.keys():
        if (size := outline.wanted[name].nbytes) > MOST_COMPUTED:
            raise ModelError(
                f"{files.description}: with options of this size, tensor {name!r}, which {files.weights} leaves to be "
                f"computed, takes {size / 2**30:,.0f} GiB"
            )


def _listed(names: list[str]) -> str:
    return f"tensor {names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
