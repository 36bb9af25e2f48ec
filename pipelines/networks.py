"""The model that a configuration chooses: its description is read at once, its networks when they are asked for."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.hub import Hub
from ss4d.pipelines.implementation import Deferred
from ss4d.stages.errors import ModelError
from ss4d.stages.memory import Memory
from ss4d.stages.model_folder import DINOV2_NAME, DINOV2_REPOSITORY, Files, ModelFolder
from ss4d.stages.ops.device import check_word, finds_cuda, meant_device
from ss4d.stages.ops.kernel_names import AttentionKernel, ConvolutionKernel, Part, RasterizerKernel, TriangleKernel
from ss4d.stages.precision import Precision
from ss4d.stages.roles import IMAGE_ENCODER, LATENT_FLOW
from ss4d.stages.sampler_params import SamplerParams

if TYPE_CHECKING:
    from ss4d.pipelines.loading import Loader
    from ss4d.stages.ops.backend import Ops
    from ss4d.stages.ops.device import Device
    from ss4d.stages.ops.rasterize import Rasterize
    from ss4d.stages.ops.triangles import SeeTriangles

computes_in_half = Deferred("ss4d.pipelines.half_precision:computes_in_half")
half_refusal = Deferred("ss4d.pipelines.half_precision:refusal")


class KernelNames(BaseModel):
    """What computes; it changes results by rounding alone, so that no key depends on it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    attention: AttentionKernel = Field(default="auto", description="attention inside groups of rows")
    convolution: ConvolutionKernel = Field(default="auto", description="convolution over occupied cells")
    rasterizer: RasterizerKernel = Field(default="auto", description="draws Gaussians")
    triangles: TriangleKernel = Field(default="auto", description="draws triangles")

    def by_part(self) -> dict[Part, str]:
        """The names, as those who choose kernels want them."""
        return {
            "attention": self.attention,
            "convolution": self.convolution,
            "rasterizer": self.rasterizer,
            "triangles": self.triangles,
        }


class ModelChoice(BaseModel):
    """Which weights, in what precision, and what computes with them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str = Field(description="bundled:NAME, hub:ORG/NAME, or a model folder")
    image_encoder: str | None = Field(
        default=None,
        description="hub:ORG/NAME or a safetensors file of DINOv2, for a model folder without an encoder of its own",
    )
    revisions: Mapping[str, str] = Field(
        default={},
        description="commit, tag or branch of hub repositories, by ORG/NAME; of others a run keeps the commit that it "
        "began with, the newest then",
    )
    precision: Precision = Field(
        default="float32",
        description="number format of the transformer torsos; published: each network's as its makers ran it",
    )
    kernels: KernelNames = Field(
        default=KernelNames(), description="by name, or auto: the best that is there and works, see docs/gpu.md"
    )

    memory: Memory = Field(
        default="default",
        description="low: keys and values of the image tokens are made anew at each sampler step, instead of keeping "
        "up to 1.25 GiB of them; results are the same",
    )

    def keeping(self, revisions: Mapping[str, str]) -> Self:
        """This choice, and of repositories for which it names no revision those given here, by ORG/NAME."""
        return self.model_copy(update={"revisions": {**revisions, **self.revisions}})


class Model:
    """A model folder, its networks on a device, and the kernels they run on.

    Only what computes needs the device, the kernels, and torch itself: they come with the first of them asked for.

    Args:
        choice: what a configuration chooses.
        folder: of that model, read.
        hub: where files come from, if from there.
        device: "auto", "cpu" or "cuda".
    """

    def __init__(self, choice: ModelChoice, folder: ModelFolder, hub: Hub, device: str) -> None:
        self.folder = folder
        self._choice, self._hub, self._device = choice, hub, device
        self._fingerprints: dict[str, str] = {}
        self._left_over: dict[str, list[str]] = {}

    @cached_property
    def _loader(self) -> "Loader":
        from ss4d.pipelines.loading import Loader  # the one way from what is planned to what computes

        choice = self._choice
        kernels = choice.kernels.by_part()
        return Loader(
            self.folder, self._device, choice.precision, kernels, choice.memory, self._left_over, self._digest
        )

    @property
    def device(self) -> "Device":
        """The device that the networks are to run on."""
        return meant_device(self._device)

    @property
    def has_device(self) -> bool:
        """Whether this machine has the device."""
        return self.device == "cpu" or finds_cuda()

    @property
    def ops(self) -> "Ops":
        """The kernels of networks for the device."""
        return self._loader.ops

    @property
    def rasterize(self) -> "Rasterize":
        """What draws Gaussians on the device.

        Raises:
            ModelError: the kernel that is asked for cannot be used.
        """
        return self._loader.rasterize

    @property
    def see(self) -> "SeeTriangles":
        """What draws triangles on the device.

        Raises:
            ModelError: the kernel that is asked for cannot be used.
        """
        return self._loader.see

    @property
    def kernels(self) -> dict[str, Any]:
        """Which kernel does each part of the work, as far as there was work, and why the others do not."""
        return self._loader.kernels.recorded()

    @property
    def notice(self) -> str | None:
        """What a user of these weights must know."""
        return self.folder.notice

    def is_half_on_cpu(self, roles: Collection[str]) -> bool:
        """Whether a network that plays one of `roles` would compute in float16 on a CPU, which takes days.

        Raises:
            ModelError: naming the description at fault.
        """
        if not roles or self._choice.precision not in ("published", "float16"):
            return False
        return self.device == "cpu" and bool(computes_in_half(self.folder, self._choice.precision, roles))

    def check_precision(self, uses: Mapping[str, SamplerParams | None], frames: Callable[[], int] | None) -> None:
        """Refuses float16 on a CPU; reads descriptions, and no weights.

        Args:
            uses: the roles of the networks to run, and the sampler of each that is sampled.
            frames: counts those of the clip; None if it is not known.

        Raises:
            ConfigError: says what to choose instead, and how long that takes.
            ModelError: naming the description at fault.
        """
        if self.is_half_on_cpu(uses):
            told = half_refusal(self.folder, self._choice.precision, uses, frames() if frames else None)
            raise ConfigError(told)

    def keep_if_room(self, roles: Collection[str], share: float) -> None:
        """Keeps the networks that play `roles` loaded, if they leave room in this `share` of the device's memory.

        Raises:
            ModelError: a file is missing or wrong; names it.
        """
        self._loader.keep_if_room(roles, share)

    def prepare(self, roles: Collection[str], *, draws: bool = False, triangles: bool = False) -> None:
        """Finds faults before anything computes: in files of the networks that play `roles`, in what is to draw.

        Args:
            roles: of networks.
            draws: whether Gaussians are to be drawn.
            triangles: whether triangles are.

        Raises:
            ModelError: a file is missing or wrong, or a kernel cannot be used; names it.
        """
        self._loader.prepare(roles)
        if draws:
            _ = self._loader.rasterize
        if triangles:
            _ = self._loader.see

    def release(self, roles: Collection[str]) -> None:
        """Gives back the memory of the networks that play `roles`, but for those that stay."""
        if roles:
            self._loader.release(roles)

    def network(self, role: str) -> Any:
        """The network that plays `role`, ready to run.

        Raises:
            ModelError: a file is missing or wrong; names it.
        """
        return self._loader.network(role)

    def check_loaded(self, role: str, fingerprint: str) -> None:
        """Makes sure that the network that was loaded is the one that a run was planned with.

        Raises:
            ModelError: its files were replaced since, here or on the machine that planned.
        """
        if self._loader.loaded[role] != fingerprint:
            file = self.folder.files(role).weights
            raise ModelError(f"{file} has changed since the run was planned; nothing made with it is stored: run again")

    def fetch(self, roles: Iterable[str]) -> None:
        """Downloads what is not here yet of the networks that play `roles`.

        Raises:
            ModelError: a file cannot be had.
        """
        for role in roles:
            self.folder.files(role)

    @property
    def revisions(self) -> dict[str, str]:
        """The commits of the hub repositories that files are of."""
        return self._hub.commits

    def fingerprint(self, role: str) -> str:
        """SHA-256 of what decides the results of the network that plays `role`: its files, and what belongs to it."""
        if role not in self._fingerprints:
            self._fingerprints[role] = self._digest(role)
        return self._fingerprints[role]

    def _digest(self, role: str) -> str:
        files = self.folder.fingerprint(role)
        if role != LATENT_FLOW:
            return files
        # Its results are denormalized with numbers that stand in pipeline.json, not in its own files.
        numbers = json.dumps(asdict(self.folder.slat_normalization))
        return hashlib.sha256(f"{files} {numbers}".encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a run's record says of the weights.

        Where they lie, the commits of hub repositories, the hashes of their files by role, and by file the tensors that
        no network took, as far as networks have been loaded.
        """
        return {
            "location": self._choice.model,
            "revisions": self.revisions,
            "sha256": dict(self._fingerprints),
            "left_over": dict(self._left_over),
        }


def open_model(choice: ModelChoice, device: str) -> Model:
    """The model that is chosen, the same object for the same choice and word for a device.

    The device need not be there until something is computed.

    Raises:
        ConfigError, InputError, ModelError: naming what cannot be.
    """
    check_word(device)
    return _open(choice.model_dump_json(include=set(ModelChoice.model_fields)), device)


@cache
def _open(choice_json: str, device: str) -> Model:
    choice = ModelChoice.model_validate_json(choice_json)
    hub = Hub(choice.revisions)

    def others(repository: str) -> Files:
        if repository == DINOV2_REPOSITORY and choice.image_encoder is not None:
            return hub.weights(choice.image_encoder)
        return hub.repository(repository)

    folder = ModelFolder.read(hub.model(choice.model), others)
    if choice.image_encoder is not None and folder.references[IMAGE_ENCODER] != DINOV2_NAME:
        raise ConfigError(f"the model {choice.model} brings its own image encoder: set image_encoder to null")
    return Model(choice, folder, hub, device)
