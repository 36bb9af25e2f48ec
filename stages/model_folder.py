"""A model folder as it describes itself (docs/model.md, section 1): read without torch, and without its weights.

Networks are asked for by role (`ss4d.stages.roles`). Nothing here goes online: files outside the folder come through
the `Resolver` that the caller hands in.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NoReturn, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ss4d.stages.errors import ModelError
from ss4d.stages.roles import IMAGE_ENCODER
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams

Json = TypeVar("Json", bound=BaseModel)
Resolver = Callable[[str, str], Path]  # (hub repository, file in it) -> the file on this machine

DINOV2_NAME, DINOV2_REPOSITORY, DINOV2_FILE = (
    "dinov2_vitl14_reg",
    "facebook/dinov2-with-registers-large",
    "model.safetensors",
)
STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
LENIENT = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _Strict(BaseModel):
    """What decides the result: an unknown key is refused."""

    model_config = STRICT


class _Lenient(BaseModel):
    """What the authors' loader reads some keys of: others, and their values, do not matter."""

    model_config = LENIENT


class _SamplerArgs(_Strict):
    sigma_min: float = Field(ge=0, lt=1)


class _Sampler(_Lenient):
    name: Literal["FlowEulerSampler", "FlowEulerCfgSampler", "FlowEulerGuidanceIntervalSampler"]
    args: _SamplerArgs
    params: SamplerConfig = SamplerConfig()


class _Normalization(_Lenient):
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must be equally long, got {len(self.mean)} and {len(self.std)} values")
        return self


class _PipelineArgs(_Lenient):
    models: dict[str, str]
    sparse_structure_sampler: _Sampler
    slat_sampler: _Sampler
    slat_normalization: _Normalization
    image_cond_model: str


class _Pipeline(_Lenient):
    args: _PipelineArgs


@dataclass(frozen=True, kw_only=True)
class NetworkFiles:
    """Where one network lies."""

    weights: Path
    description: Path | None  # None for DINOv2, whose options are known


def no_resolver(repository: str, file: str) -> Path:
    """A `Resolver` for folders that must be complete."""
    raise ModelError(f"the model folder lacks {repository}/{file}, and no other source was given for it")


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose `pipeline.json` has been read and checked; `ss4d.stages.weights` loads its networks."""

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
            ModelError: naming the file and the option that is missing or cannot be honored.
        """
        args = read_json(path / "pipeline.json", _Pipeline).args
        return cls(
            path=path,
            references={**args.models, IMAGE_ENCODER: args.image_cond_model},
            structure_sampler=_as_named(args.sparse_structure_sampler),
            slat_sampler=_as_named(args.slat_sampler),
            notice=_notice(path / "NOTICE.md"),
            slat_normalization=LatentNormalization(mean=args.slat_normalization.mean, std=args.slat_normalization.std),
            resolver=resolver,
        )

    def files(self, role: str) -> NetworkFiles:
        """The files of the network that plays `role`; nothing is read from them.

        Raises:
            ModelError: naming the role or file at fault.
        """
        if role not in self.references:
            raise ModelError(f"{self.path / 'pipeline.json'} names no {role}; it has {', '.join(self.references)}")
        reference = self.references[role]
        if role == IMAGE_ENCODER and reference == DINOV2_NAME:
            return NetworkFiles(weights=self.resolver(DINOV2_REPOSITORY, DINOV2_FILE), description=None)
        description = self._locate(reference, ".json")
        return NetworkFiles(weights=self._locate(reference, ".safetensors"), description=description)

    def fingerprint(self, role: str) -> str:
        """SHA-256, in hex, of the description and weights of the network that plays `role`.

        Raises:
            ModelError: naming the role or file at fault.
        """
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


def read_json(file: Path, kind: type[Json]) -> Json:
    """The content of a JSON file as `kind`.

    Raises:
        ModelError: naming the file and the option at fault.
    """
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        refuse(file, error)


def refuse(file: Path, error: ValidationError, *option: str) -> NoReturn:
    """Raises a ModelError for a problem that was found in `file`, in what stands under the keys `option`."""
    problem = error.errors()[0]
    where = ".".join(map(str, (*option, *problem["loc"])))
    given = "" if problem["type"] in {"missing", "json_invalid"} else f"; got {problem['input']!r}"
    raise ModelError(f"{file}: {f'option {where}: ' if where else ''}{problem['msg']}{given}") from error


def _notice(file: Path) -> str | None:
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _as_named(sampler: _Sampler) -> SamplerParams:
    """The values of a sampler; its name says whether there is guidance, and whether it has an interval."""
    params = _sampler_params(sampler.params)
    match sampler.name:
        case "FlowEulerSampler":
            return replace(params, cfg_strength=0.0)
        case "FlowEulerCfgSampler":
            return replace(params, cfg_interval=(0.0, 1.0))
    return params


def _sampler_params(given: SamplerConfig) -> SamplerParams:
    """The values that a folder gives, and the default of each that it leaves out."""
    return SamplerParams(**{name: value for name, value in given if value is not None})
