"""What an implementation of a stage declares and is given; all a package needs beside `ss4d.stages.types`.

docs/stages.md shows how to write one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import torch

from ss4d.pipelines.errors import PluginError
from ss4d.pipelines.networks import Model
from ss4d.stages.input_files import InputConfig
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import Clip, GaussianClip, Progress, StructuredLatents, Tokens, Value, Video, Voxels
from ss4d.stages.video_io import read_video

V = TypeVar("V", bound=Value)

# The stages in order, with what each gives; None: files.
STAGES: Mapping[str, type[Value] | None] = {
    "segmentation": Clip,
    "conditioning": Tokens,
    "sparse_structure": Voxels,
    "slat": StructuredLatents,
    "decoding": GaussianClip,
    "export": None,
}


@dataclass(frozen=True)
class Package:
    """The installed distribution that an implementation comes from."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage's function is given besides its configuration; it gets what its implementation declares, no more.

    Attributes:
        implementation: whose function it is.
        folder: empty; a stage that gives files writes them here.
        progress: to be called with (steps done, steps in all).
        model: the model folder, its networks and the kernels they run on.
    """

    implementation: "Implementation"
    source: Path
    input_config: InputConfig
    inputs: Mapping[str, Value]
    model: Model
    seed: int
    folder: Path
    progress: Progress

    def input(self, stage: str, kind: type[V]) -> V:
        """The value of type `kind` that the named stage gave."""
        self._declared(stage in self.inputs, f"inputs with {stage!r}")
        value = self.inputs[stage]
        if not isinstance(value, kind):
            raise PluginError(
                f"{self.implementation} asks {stage} for {kind.__name__}, but it gives {type(value).__name__}"
            )
        return value

    def video(self) -> Video:
        """The frames of the run's input that its configuration chooses."""
        self._declared(self.implementation.source, "source=True")
        return read_video(self.source, self.input_config)

    def network(self, role: str) -> Any:
        """The network that plays `role` in the model folder, ready to run on the run's device."""
        self._declared(role in self.implementation.roles, f"roles with {role!r}")
        return self.model.network(role)

    def generator(self) -> torch.Generator:
        """A CPU generator, so that a seed means the same on every device (docs/model.md, section 4)."""
        self._declared(self.implementation.seeded, "seeded=True")
        return torch.Generator().manual_seed(self.seed)

    def _declared(self, given: bool, words: str) -> None:
        """What is not declared is not in the key, and a result could be mistaken for another."""
        if not given:
            raise PluginError(f"{self.implementation} uses what it does not declare: it must say {words}")


def as_given(config: StageConfig, _folder: ModelFolder) -> StageConfig:
    """Leaves nothing to the model folder."""
    return config


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One way to do one stage.

    Args:
        stage: which one, a name in `STAGES`; it says what `run` must give.
        config: its configuration. The names in the Literal of its field `method` choose this implementation.
        run: from the configuration and the work to the stage's value, or, for a stage that gives files, to None.
        revision: rises whenever the same configuration and inputs would give another result.
        source: whether it reads the run's input.
        inputs: the earlier stages whose values it takes.
        roles: the networks it runs, as the model folder names them.
        seeded: whether it draws random numbers.
        resolve: fills in what the configuration leaves to the model folder.
        package: where it comes from; set when it is found, None for what comes with the program.

    Raises:
        PluginError: naming what cannot be.
    """

    stage: str
    config: type[StageConfig]
    run: Callable[[Any, Work], Value | None]
    revision: int = 1
    source: bool = False
    inputs: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    seeded: bool = False
    resolve: Callable[[Any, ModelFolder], StageConfig] = as_given
    package: Package | None = None

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise PluginError(f"there is no stage {self.stage!r} to implement; choose one of {', '.join(STAGES)}")
        if not (isinstance(self.config, type) and issubclass(self.config, StageConfig)):
            raise PluginError(f"the config of an implementation of {self.stage} must be a subclass of StageConfig")
        if not self.methods or not all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in self.methods):
            raise PluginError(
                f"{self.config.__name__}.method must be a Literal of names made of a-z, 0-9 and '_', with a default"
            )
        earlier = list(STAGES)[: list(STAGES).index(self.stage)]
        if unknown := [name for name in self.inputs if name not in earlier]:
            raise PluginError(
                f"{self} cannot take the result of {unknown[0]!r}: before it come {', '.join(earlier) or 'no stages'}"
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """The names that choose it, the default first."""
        field = self.config.model_fields["method"]
        names = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        return tuple(sorted(names, key=lambda name: name != field.default)) if field.default in names else ()

    @property
    def output(self) -> type[Value] | None:
        """What it gives; None: files."""
        return STAGES[self.stage]

    def __str__(self) -> str:
        package = f" of the package {self.package}" if self.package else ""
        return f"the implementation {self.methods[0]!r} of the stage {self.stage}{package}"
