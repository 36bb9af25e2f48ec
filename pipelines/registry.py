"""Every stage and every implementation there is: those that come with the program, and those that packages offer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ss4d.pipelines.errors import ConfigError, PluginError
from ss4d.pipelines.implementation import Implementation, Package, Stage
from ss4d.pipelines.stages import BUILT_IN, STAGES

# An entry point in this group is called STAGE and names a `Stage`, or is called STAGE.METHOD and names an
# `Implementation`.
GROUP = "ss4d.stages"
PROGRAM = "this program"


@dataclass(frozen=True)
class Registry:
    """Stages by name, and their implementations by method. A package is imported only when what it offers is asked
    for, and once: to look up whose it is reads its metadata, which takes as long as a small stage.

    Args:
        own_stages: what comes with the program, in the order of a run.
        built_in: their implementations.
        offered: entry points of packages.
    """

    own_stages: Sequence[Stage]
    built_in: Sequence[Implementation]
    offered: Sequence[EntryPoint]
    _loaded: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def stages(self) -> list[str]:
        """The names of all stages, those of packages last; imports nothing."""
        own = [stage.name for stage in self.own_stages]
        return list(dict.fromkeys([*own, *sorted(entry.name for entry in self.offered if "." not in entry.name)]))

    def stage(self, name: str) -> Stage:
        """The stage called `name`.

        Raises:
            ConfigError: there is none, or more than one.
            PluginError: the package that adds it is broken; names the package.
        """
        own = [stage for stage in self.own_stages if stage.name == name]
        foreign = [entry for entry in self.offered if entry.name == name and "." not in name]
        _refuse_two(f"the stage {name}", len(own), foreign)
        if own:
            return own[0]
        if foreign:
            found: Stage = self._load(foreign[0])
            return found
        raise ConfigError(f"there is no stage {name!r}; choose one of {', '.join(self.stages())}")

    def default(self, stage: str) -> str:
        """The method of a stage for which none is chosen."""
        return self.stage(stage).default

    def methods(self, stage: str) -> list[str]:
        """The names to choose from, those of packages last."""
        own = [name for known in self.built_in if known.stage == stage for name in known.methods]
        foreign = [entry.name.partition(".")[2] for entry in self.offered if entry.name.startswith(f"{stage}.")]
        return list(dict.fromkeys([*own, *sorted(foreign)]))

    def same(self, stage: str, method: object, other: object) -> bool:
        """Whether two methods are one implementation's."""
        return method == other or any(
            known.stage == stage and method in known.methods and other in known.methods for known in self.built_in
        )

    def get(self, stage: str, method: object) -> Implementation:
        """The implementation that `method` chooses.

        Raises:
            ConfigError: there is none of this name, or more than one.
            PluginError: the package that offers it is broken; names the package.
        """
        own = [known for known in self.built_in if known.stage == stage and method in known.methods]
        foreign = [entry for entry in self.offered if entry.name == f"{stage}.{method}"]
        _refuse_two(f"the implementation {method!r} of the stage {stage}", len(own), foreign)
        if own:
            return own[0]
        if foreign:
            found: Implementation = self._load(foreign[0])
            return found
        choices = ", ".join(self.methods(stage))
        raise ConfigError(f"configuration key '{stage}.method' must be one of {choices}; got {method!r}")

    def _load(self, entry: EntryPoint) -> Any:
        if entry.name not in self._loaded:
            self._loaded[entry.name] = load(entry)
        return self._loaded[entry.name]


def load(entry: EntryPoint) -> Stage | Implementation:
    """The stage or the implementation that a package offers.

    Raises:
        PluginError: it cannot be imported, or is not what its name says; names the package.
    """
    package = _package(entry)
    broken = f"the package {package} is broken, so {entry.name} cannot be used"
    stage, dot, method = entry.name.partition(".")
    kind = Implementation if dot else Stage
    try:
        found = entry.load()
    except Exception as error:  # whatever a foreign module does when it is imported
        raise PluginError(f"{broken}: {entry.value} does not load ({type(error).__name__}: {error})") from error
    if not isinstance(found, kind):
        raise PluginError(f"{broken}: {entry.value} is no {kind.__name__} but {type(found).__name__}")
    if isinstance(found, Stage):
        if found.name != stage:
            raise PluginError(f"{broken}: {entry.value} is the stage {found.name}; its entry point must have its name")
    elif found.stage != stage or found.methods != (method,):
        raise PluginError(
            f"{broken}: {entry.value} implements {found.stage} as {', '.join(found.methods)}; the name of its entry "
            f"point, the stage and the one name in the config's method must agree"
        )
    return replace(found, package=package)


@cache
def installed() -> Registry:
    """What this Python installation offers; packages are looked up once in a process."""
    return Registry(STAGES, BUILT_IN, tuple(entry_points(group=GROUP)))


def unknown_names(registry: Registry) -> list[str]:
    """A sentence for each entry point whose name leads nowhere, so that nothing could ever choose it."""
    stages = registry.stages()
    return [
        f"the package {_package(entry)} offers {entry.name!r}, which is no STAGE.METHOD of a stage "
        f"({', '.join(stages)})"
        for entry in registry.offered
        if entry.name.partition(".")[0] not in stages
    ]


def _refuse_two(what: str, own: int, foreign: Sequence[EntryPoint]) -> None:
    if own + len(foreign) > 1:
        owners = [PROGRAM] * own + [f"the package {_package(entry)}" for entry in foreign]
        raise ConfigError(
            f"{what} is offered by {' and by '.join(owners)}: uninstall a package, since results of the two could be "
            "mistaken for each other"
        )


def _package(entry: EntryPoint) -> Package:
    assert entry.dist is not None  # entry points of installed packages have one
    return Package(entry.dist.name, entry.dist.version)
