"""A model folder as it describes itself (docs/model.md, section 1): read without torch, and without its weights.

Networks are asked for by role (`ss4d.stages.roles`). Nothing here goes online: where files lie is the matter of the
`Files` that the caller hands in.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Protocol, TypeVar

from ss4d.stages.errors import ModelError
from ss4d.stages.roles import IMAGE_ENCODER
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams
from ss4d.stages.typed_json import Bounds, Lenient, naming, parse, read_json

Answer = TypeVar("Answer")
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


class Files(Protocol):
    """The files of a model by their names, such as "ckpts/decoder.json", wherever they are."""

    def find(self, name: str, /) -> Path | None:
        """A file, fetched first if need be; None if there is none of that name.

        Raises:
            ModelError: it is not known whether there is one, or it cannot be had.
        """

    def sha256(self, name: str, /) -> bytes | None:
        """The digest of a file's content, for which the file need not be fetched; None if there is none of that name.

        Raises:
            ModelError: as `find`.
        """

    def address(self, name: str, /) -> str:
        """What a message calls a file that is missing."""


Repositories = Callable[[str], Files]  # the files of a hub repository, by its name "org/name"


def sha256_of(file: Path) -> bytes:
    """The digest of a file's content.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error


@dataclass(frozen=True)
class LocalFiles:
    """Those of a folder on this machine.

    Attributes:
        folder: that they lie in.
        digest: gives the SHA-256 of one.
    """

    folder: Path
    digest: Callable[[Path], bytes] = sha256_of

    def find(self, name: str) -> Path | None:
        """See `Files`."""
        file = self.folder / name
        return file if file.is_file() else None

    def sha256(self, name: str) -> bytes | None:
        """See `Files`."""
        file = self.find(name)
        return None if file is None else self.digest(file)

    def address(self, name: str) -> str:
        """See `Files`."""
        return str(self.folder / name)


@dataclass(frozen=True)
class _Unreachable:
    """The files of a hub repository that nobody said how to get."""

    repository: str

    def find(self, name: str) -> Path | None:
        raise ModelError(f"the model folder lacks {self.address(name)}, and no other source was given for it")

    def sha256(self, name: str) -> bytes | None:
        self.find(name)
        return None

    def address(self, name: str) -> str:
        return f"{self.repository}/{name}"


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose `pipeline.json` has been read and checked; `ss4d.stages.weights` loads its networks."""

    path: Path  # where pipeline.json lies on this machine
    references: Mapping[str, str]  # role -> path in the folder, or in a hub repository
    structure_sampler: SamplerParams
    slat_sampler: SamplerParams
    slat_normalization: LatentNormalization
    notice: str | None  # what its makers want every user to know: the text of NOTICE.md
    own: Files  # of the folder
    others: Repositories  # that it refers to

    @classmethod
    def open(cls, path: Path) -> "ModelFolder":
        """Reads `path`/pipeline.json, of a folder that is complete.

        Raises:
            ModelError: naming the file and the option that is missing or cannot be honored.
        """
        return cls.read(LocalFiles(path), _Unreachable)

    @classmethod
    def read(cls, own: Files, others: Repositories) -> "ModelFolder":
        """Reads the pipeline.json of a folder, wherever its files and those that it refers to are.

        Raises:
            ModelError: naming the file and the option that is missing or cannot be honored.
        """
        file = own.find("pipeline.json")
        if file is None:
            raise ModelError(f"{own.address('pipeline.json')} is missing, so that is no model folder")
        args = read_json(file, _Pipeline).args
        with naming(file):
            return cls(
                path=file.parent,
                references={**args.models, IMAGE_ENCODER: args.image_cond_model},
                structure_sampler=_params(args.sparse_structure_sampler, "args", "sparse_structure_sampler"),
                slat_sampler=_params(args.slat_sampler, "args", "slat_sampler"),
                slat_normalization=args.slat_normalization,
                notice=_notice(own.find("NOTICE.md")),
                own=own,
                others=others,
            )

    def description(self, role: str) -> Path | None:
        """The description of the network that plays `role`; None for DINOv2, whose options are known.

        Raises:
            ModelError: naming the role or file at fault.
        """
        return None if self._is_dinov2(role) else self._ask(role, ".json", lambda files, name: files.find(name))

    def files(self, role: str) -> NetworkFiles:
        """The files of the network that plays `role`; nothing is read from them.

        Raises:
            ModelError: naming the role or file at fault.
        """
        description = self.description(role)
        weights = self._ask(role, ".safetensors", lambda files, name: files.find(name))
        return NetworkFiles(weights=weights, description=description)

    def fingerprint(self, role: str) -> str:
        """SHA-256, in hex, of the description and weights of the network that plays `role`.

        Raises:
            ModelError: naming the role or file at fault.
        """
        digest = hashlib.sha256()
        for suffix in (".safetensors",) if self._is_dinov2(role) else (".json", ".safetensors"):
            digest.update(self._ask(role, suffix, lambda files, name: files.sha256(name)))
        return digest.hexdigest()

    def _is_dinov2(self, role: str) -> bool:
        """Whether the role is played by the DINOv2 that everybody has."""
        return role == IMAGE_ENCODER and self.references[role] == DINOV2_NAME

    def _ask(self, role: str, suffix: str, question: Callable[[Files, str], Answer | None]) -> Answer:
        """The answer about a file of a role: of the folder's own, or of the repository that its path begins with."""
        pipeline = self.path / "pipeline.json"
        if role not in self.references:
            raise ModelError(f"{pipeline} names no {role}; it has {', '.join(self.references)}")
        if self._is_dinov2(role):
            return _known(question, self.others(DINOV2_REPOSITORY), DINOV2_FILE)
        reference = self.references[role]
        path = PurePosixPath(reference)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in reference or ":" in reference:
            raise ModelError(f"{pipeline}: the path {reference!r} must stay inside the model folder")
        if (answer := question(self.own, f"{reference}{suffix}")) is not None:
            return answer
        if len(path.parts) < 3:
            raise ModelError(f"{self.own.address(reference + suffix)} is missing from the model folder")
        return _known(question, self.others("/".join(path.parts[:2])), "/".join(path.parts[2:]) + suffix)


def _known(question: Callable[[Files, str], Answer | None], files: Files, name: str) -> Answer:
    """The answer about a file that must be there."""
    answer = question(files, name)
    if answer is None:
        raise ModelError(f"{files.address(name)} is missing from the model folder")
    return answer


def _notice(file: Path | None) -> str | None:
    # It is for people to read: in whatever code it is written, a folder is not refused for it.
    return None if file is None else file.read_text(encoding="utf-8", errors="replace").strip()


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
