"""What stages and their implementations declare; nothing here computes, so that a plan needs no torch.

A package adds a stage with a `Stage` and at least one `Implementation` of it; docs/stages.md shows how to write one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from ss4d.pipelines.errors import PluginError
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.stage_config import StageConfig

if TYPE_CHECKING:
    from ss4d.stages.types import Value

NAME = r"[a-z][a-z0-9_]*"
# Other keys of a configuration, which a section of a stage would hide.
RESERVED = ("model", "image_encoder", "precision", "input", "goals", "sections")
TRAINING_CLIP = "training_clip"  # what stores hold beside the results of stages


@dataclass(frozen=True)
class Deferred:
    """A function or class named as "module:name" and imported when it is first used: a plan needs only the name.

    Raises:
        PluginError: if the place is not of that form.
    """

    place: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.]+:\w+", self.place):
            raise PluginError(f"a function is named as 'module:name'; got {self.place!r}")

    def load(self) -> Any:
        """What is named."""
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.load()(*args, **options)


@dataclass(frozen=True)
class Package:
    """The installed distribution that a stage or an implementation comes from."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step from the input to a result, whatever implementation does it.

    Args:
        name: its section in a configuration, its folder in a store, its name for --goal.
        output: the type of the value that it gives, or where that type is; None: files.
        default: the method taken where a configuration chooses none.
        meaning: what it does, in a few words.
        package: where it comes from; set when it is found, None for what comes with the program.

    Raises:
        PluginError: naming what cannot be.
    """

    name: str
    output: "type[Value] | Deferred | None"
    default: str
    meaning: str
    package: Package | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.name):
            raise PluginError(f"the name of a stage is made of a-z, 0-9 and '_'; got {self.name!r}")
        if self.name in (*RESERVED, TRAINING_CLIP):
            raise PluginError(f"no stage can be called {self.name!r}: the name stands for something else")

    @property
    def gives_files(self) -> bool:
        """Whether its result is files, and no arrays."""
        return self.output is None

    def value_type(self) -> "type[Value]":
        """The type of the value that it gives; must not be asked of a stage that gives files."""
        assert self.output is not None
        kind: type[Value] = self.output.load() if isinstance(self.output, Deferred) else self.output
        return kind


def as_given(config: StageConfig, _folder: ModelFolder) -> StageConfig:
    """Leaves nothing to the model folder."""
    return config


def needs_nothing(_config: StageConfig) -> None:
    """Asks for nothing that does not come with the program."""


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One way to do one stage.

    Args:
        stage: the name of the stage; it says what `run` must give.
        config: its configuration. The names in the Literal of its field `method` choose this implementation.
        run: from the configuration and the inputs to the stage's value, or, for a stage that gives files, to None.
            Without a `run` it leaves its stage out: whoever takes the stage's result is given that of the one stage
            which this implementation takes, or, if it takes none, has to do without.
        revision: rises whenever the same configuration and inputs would give another result.
        source: whether it reads the run's input.
        inputs: the stages whose results it takes.
        optional: the stages whose results it takes where they are not left out.
        on_request: the stages whose results it takes where its configuration asks for that, and what tells so.
        calls_for: the methods of other stages that its result calls for, where these are left to the method "auto".
        roles: the networks it runs, as the model folder names them.
        seeded: whether it takes random numbers.
        draws: whether it draws Gaussians.
        triangles: whether it draws triangles.
        resolve: fills in what the configuration leaves to the model folder.
        check: is called with the configuration before a run or a dataset in which the stage will run computes anything,
            and raises an InputError where that is bound to fail here: a package is not installed, for instance.
        package: where it comes from; set when it is found, None for what comes with the program.
        given: set when a run's stages are put in order: the stage whose result stands for that of each in `inputs` and
            `optional`, None where there is none. From then on, `inputs` are those that are given.

    Raises:
        PluginError: naming what cannot be.
    """

    stage: str
    config: type[StageConfig]
    # The second is `StageInputs`, which knows implementations: the type would make a circle.
    run: "Callable[[Any, Any], Value | None] | None" = None
    revision: int = 1
    source: bool = False
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    on_request: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    calls_for: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    seeded: bool = False
    draws: bool = False
    triangles: bool = False
    resolve: Callable[[Any, ModelFolder], StageConfig] = as_given
    check: Callable[[Any], None] = needs_nothing
    package: Package | None = None
    given: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.config, type) and issubclass(self.config, StageConfig)):
            raise PluginError(f"the config of an implementation of {self.stage} must be a subclass of StageConfig")
        if not self.methods or not all(re.fullmatch(NAME, name) for name in self.methods):
            raise PluginError(
                f"{self.config.__name__}.method must be a Literal of names made of a-z, 0-9 and '_', with a default"
            )
        if self.stage in (*self.inputs, *self.optional, *self.on_request):
            raise PluginError(f"{self} cannot take its own result")
        if self.run is None and len(self.inputs) > 1:
            raise PluginError(f"{self} leaves its stage out, so it can take the result of one other at most")

    def asked(self, config: StageConfig) -> "Implementation":
        """This implementation with the inputs that it takes with this configuration."""
        more = tuple(stage for stage, wanted in self.on_request.items() if wanted(config))
        return replace(self, inputs=(*self.inputs, *more), on_request={})

    @property
    def leaves_out(self) -> bool:
        """Whether its stage does nothing."""
        return self.run is None

    @property
    def methods(self) -> tuple[str, ...]:
        """The names that choose it, the default first."""
        field = self.config.model_fields["method"]
        names = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        return tuple(sorted(names, key=lambda name: name != field.default)) if field.default in names else ()

    def __str__(self) -> str:
        package = f" of the package {self.package}" if self.package else ""
        return f"the implementation {self.methods[0]!r} of the stage {self.stage}{package}"
