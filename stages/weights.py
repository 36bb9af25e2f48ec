"""A model folder to networks, strictly: files, options, every tensor by name and shape (docs/model.md, section 1).

A role is what a network is for, as `pipeline.json` names it ("slat_flow_model"); "image_cond_model" is one too. Nothing
here goes online: files outside the folder come through the `Resolver` that the caller hands in.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NoReturn, Protocol, Self, TypeVar, get_type_hints, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.checkpoint import NETWORKS
from ss4d.stages.nn.image_encoders import DINOV2_VITL14_REG
from ss4d.stages.ops.backend import Ops
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.sampling import LatentNormalization, SamplerParams

Json = TypeVar("Json", bound=BaseModel)
Resolver = Callable[[str, str], Path]  # (hub repository, file in it) -> the file on this machine

IMAGE_ENCODER = "image_cond_model"
DINOV2_NAME, DINOV2_REPOSITORY, DINOV2_FILE = (
    "dinov2_vitl14_reg",
    "facebook/dinov2-with-registers-large",
    "model.safetensors",
)


@runtime_checkable
class HasTorso(Protocol):
    """A network with transformer blocks, which may run in another precision than the rest."""

    def set_torso_dtype(self, dtype: torch.dtype) -> None: ...


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
class NetworkFiles:
    """Where one network's description and weights lie, and what the description says."""

    name: str  # class name, a key of NETWORKS
    args: Any  # an instance of that class's options
    weights: Path
    description: Path | None  # None for DINOv2, whose options are known


PLAIN = {"temperature": 1.0}
STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Strict(BaseModel):
    model_config = STRICT


class _SamplerArgs(_Strict):
    sigma_min: float = Field(ge=0, lt=1)


class _Sampler(_Strict):
    name: Literal["FlowEulerGuidanceIntervalSampler"]
    args: _SamplerArgs
    params: SamplerConfig


class _Normalization(_Strict):
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must be equally long, got {len(self.mean)} and {len(self.std)} values")
        return self


class _PipelineArgs(_Strict):
    models: dict[str, str]
    sparse_structure_sampler: _Sampler
    slat_sampler: _Sampler
    slat_normalization: _Normalization
    image_cond_model: str


class _Pipeline(_Strict):
    name: Literal["TrellisVideoTo4DPipeline"]
    args: _PipelineArgs


class _Network(_Strict):
    name: str
    args: dict[str, Any]


def no_resolver(repository: str, file: str) -> Path:
    """A `Resolver` for folders that must be complete."""
    raise ModelError(f"the model folder lacks {repository}/{file}, and no other source was given for it")


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose `pipeline.json` has been read and checked; networks are read when asked for."""

    path: Path
    references: Mapping[str, str]  # role -> path in the folder, or in a hub repository
    structure_sampler: SamplerParams
    slat_sampler: SamplerParams
    slat_normalization: LatentNormalization
    notice: str | None  # what its makers want every user to know: the text of NOTICE.md
    resolver: Resolver

    @classmethod
    def open(cls, path: Path, resolver: Resolver = no_resolver) -> "ModelFolder":
        """Reads `path`/pipeline.json.

        Raises:
            ModelError: naming the file and the option that is missing, unknown or impossible.
        """
        file = path / "pipeline.json"
        args = _read_json(file, _Pipeline).args
        return cls(
            path=path,
            references={**args.models, IMAGE_ENCODER: args.image_cond_model},
            structure_sampler=_sampler_params(args.sparse_structure_sampler, file),
            slat_sampler=_sampler_params(args.slat_sampler, file),
            notice=_notice(path / "NOTICE.md"),
            slat_normalization=LatentNormalization(mean=args.slat_normalization.mean, std=args.slat_normalization.std),
            resolver=resolver,
        )

    def files(self, role: str) -> NetworkFiles:
        """The network that plays `role`, its options checked; its weights are not read.

        Raises:
            ModelError: naming the role, file or option at fault.
        """
        if role not in self.references:
            raise ModelError(f"{self.path / 'pipeline.json'} names no {role}; it has {', '.join(self.references)}")
        reference = self.references[role]
        if role == IMAGE_ENCODER and reference == DINOV2_NAME:
            weights = self.resolver(DINOV2_REPOSITORY, DINOV2_FILE)
            return NetworkFiles("VisionTransformer", DINOV2_VITL14_REG, weights, None)
        description = self._locate(reference, ".json")
        network = _read_json(description, _Network)
        name = network.name.removeprefix("Elastic")
        if name not in NETWORKS:
            raise ModelError(f"{description}: class {network.name!r} is unknown; known are {', '.join(NETWORKS)}")
        args = _parse_args(NETWORKS[name].args, network.args, description)
        return NetworkFiles(name, args, self._locate(reference, ".safetensors"), description)

    def load(self, role: str, ops: Ops, *, device: torch.device, torso_dtype: torch.dtype = torch.float32) -> nn.Module:
        """The network that plays `role`, in eval mode on `device`, without gradients.

        Weights are float32 whatever the file holds, but for the transformer blocks, which take `torso_dtype`.

        Raises:
            ModelError: naming the file and the tensor or option at fault.
        """
        files = self.files(role)
        module = load_network(files, ops, device=device)
        if isinstance(module, HasTorso):
            module.set_torso_dtype(torso_dtype)
        return module.eval().requires_grad_(False)

    def fingerprint(self, role: str) -> str:
        """SHA-256, in hex, of the description and weights of the network that plays `role`."""
        files = self.files(role)
        digest = hashlib.sha256()
        for file in filter(None, (files.description, files.weights)):
            try:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                raise ModelError(f"cannot read {file}: {error.strerror}") from error
        return digest.hexdigest()

    def _locate(self, reference: str, suffix: str) -> Path:
        """The file `reference` + `suffix`: in the folder, else in the hub repository that its first two parts name."""
        path = PurePosixPath(reference)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in reference or ":" in reference:
            raise ModelError(f"{self.path / 'pipeline.json'}: the path {reference!r} must stay inside the model folder")
        local = self.path / f"{reference}{suffix}"
        if local.is_file():
            return local
        if len(path.parts) < 3:
            raise ModelError(f"{local} is missing from the model folder")
        return self.resolver("/".join(path.parts[:2]), "/".join(path.parts[2:]) + suffix)


def load_network(files: NetworkFiles, ops: Ops, *, device: torch.device) -> nn.Module:
    """The network that `files` describe, every tensor from the file and in float32 on `device`.

    Raises:
        ModelError: naming the file and the tensor or option at fault.
    """
    try:
        with torch.device("meta"):  # the file brings every tensor: nothing is initialized or held twice
            module = NETWORKS[files.name].build(files.args, ops)
    except ModelError as error:
        raise ModelError(f"{files.description}: {error}") from error
    state = read_tensors(files.weights, device)
    if "embeddings.cls_token" in state:
        state = dinov2_from_hub(state)
    _check_tensors(files, module.state_dict(), state)
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True, assign=True)
    left = [name for name, tensor in chain(module.named_parameters(), module.named_buffers()) if tensor.is_meta]
    assert not left, f"{files.name} keeps {left} out of its state, so no file can bring them"
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


def _check_tensors(files: NetworkFiles, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuses a file unless its tensors are exactly those of the network, in name and shape."""
    if missing := sorted(wanted.keys() - given.keys()):
        raise ModelError(f"{files.weights} lacks {_listed(missing)}, which {files.name} needs")
    if unexpected := sorted(given.keys() - wanted.keys()):
        raise ModelError(f"{files.weights} holds {_listed(unexpected)}, which {files.name} does not have")
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape or not given[name].is_floating_point():
            raise ModelError(
                f"{files.weights}: tensor {name!r} is {tuple(given[name].shape)} of {given[name].dtype}, "
                f"but {files.name} needs {tuple(tensor.shape)} of floating point"
            )


def _listed(names: list[str]) -> str:
    return f"tensor {names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _read_json(file: Path, kind: type[Json]) -> Json:
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        _refuse(file, error)


def _parse_args(kind: type[Any], args: Mapping[str, Any], file: Path) -> Any:
    hints = get_type_hints(kind)
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    if unsupported := sorted(args.keys() - hints.keys()):
        raise ModelError(f"{file}: option args.{unsupported[0]} is not supported; {', '.join(hints)} are")
    if missing := sorted(required - args.keys()):
        raise ModelError(f"{file}: option args.{missing[0]} is missing")
    values = {}
    for name, value in args.items():
        try:
            # JSON mode is strict about types, yet reads a list as a tuple and 4 as 4.0.
            values[name] = TypeAdapter(hints[name], config=STRICT).validate_json(json.dumps(value))
        except ValidationError as error:
            _refuse(file, error, "args", name)
    return kind(**values)


def _notice(file: Path) -> str | None:
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _sampler_params(sampler: _Sampler, file: Path) -> SamplerParams:
    # The published format knows no temperature.
    own = sampler.params if sampler.params.temperature is not None else sampler.params.model_copy(update=PLAIN)
    try:
        return own.params()
    except ValueError as error:
        raise ModelError(f"{file}: {error}") from error


def _refuse(file: Path, error: ValidationError, *option: str) -> NoReturn:
    problem = error.errors()[0]
    where = ".".join(map(str, (*option, *problem["loc"])))
    given = "" if problem["type"] in {"missing", "json_invalid"} else f"; got {problem['input']!r}"
    raise ModelError(f"{file}: {f'option {where}: ' if where else ''}{problem['msg']}{given}") from error
