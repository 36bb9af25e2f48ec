"""A model folder as it describes itself (docs/model.md, section 1): read without torch, and without its weights.

Networks are asked for by role (`ss4d.stages.roles`). Nothing here goes online: files outside the folder come through
the `Resolver` that the caller hands in.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from ss4d.stages.errors import ModelError
from ss4d.stages.roles import IMAGE_ENCODER
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams
from ss4d.stages.typed_json import Bounds, Lenient, naming, parse, read_json

Resolver = Callable[[str, str], Path]  # (hub repository, file in it) -> the file on this machine

DINOV2_NAME, DINOV2_REPOSITORY, DINOV2_FILE = (
    "dinov2_vitl14_reg",
    "facebook/dinov2-with-registers-large",
    "model.safetensors",
)


@dataclass(frozen=True, kw_only=True)
class _SamplerArgs:
    sigma_min: Annotated[float, Bounds(least=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class _Sampler(Lenient):
    name: Literal["FlowEulerSampler", "FlowEulerCfgSampler", "FlowEulerGuidanceIntervalSampler"]
    args: _SamplerArgs
    params: dict[str, Any] = field(default_factory=dict)  # of SamplerParams; null stands for what is left out


@dataclass(frozen=True, kw_only=True)
class _PipelineArgs(Lenient):
    models: dict[str, str]
    sparse_structure_sampler: _Sampler
    slat_sampler: _Sampler
    slat_normalization: LatentNormalization
    image_cond_model: str


@dataclass(frozen=True, kw_only=True)
class _Pipeline(Lenient):
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
        file = path / "pipeline.json"
        args = read_json(file, _Pipeline).args
        with naming(file):
            return cls(
                path=path,
                references={**args.models, IMAGE_ENCODER: args.image_cond_model},
                structure_sampler=_params(args.sparse_structure_sampler, "args", "sparse_structure_sampler"),
                slat_sampler=_params(args.slat_sampler, "args", "slat_sampler"),
                slat_normalization=args.slat_normalization,
                notice=_notice(path / "NOTICE.md"),
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


def _notice(file: Path) -> str | None:
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _params(sampler: _Sampler, *option: str) -> SamplerParams:
    """The values of the sampler under the keys `option`; its name says whether it guides, and when."""
    given = {name: value for name, value in sampler.params.items() if value is not None}
    params = parse(given, SamplerParams, *option, "params")
    match sampler.name:
        case "FlowEulerSampler":
            return replace(params, cfg_strength=0.0)
        case "FlowEulerCfgSampler":
            return replace(params, cfg_interval=(0.0, 1.0))
    return params
