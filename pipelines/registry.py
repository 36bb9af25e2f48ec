"""Every implementation of every stage there is: those that come with the program, and those that packages offer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from ss4d.pipelines.errors import ConfigError, PluginError
from ss4d.pipelines.implementation import STAGES, Implementation, Package
from ss4d.pipelines.stages import BUILT_IN

GROUP = "ss4d.stages"  # entry points here are called STAGE.METHOD and name an `Implementation`
PROGRAM = "this program"


@dataclass(frozen=True)
class Registry:
    """The implementations, by stage and method. A package is imported only when what it offers is asked for, and once:
    to look up whose it is reads its metadata, which takes as long as a small stage.

    Args:
        built_in: what comes with the program; the first of a stage is its default.
        offered: entry points of packages.
    """

    built_in: Sequence[Implementation]
    offered: Sequence[EntryPoint]
    _loaded: dict[str, Implementation] = field(default_factory=dict, init=False, repr=False, compare=False)

    def default(self, stage: str) -> str:
        """The method of a stage for which none is chosen."""
        return next(one.methods[0] for one in self.built_in if one.stage == stage)

    def methods(self, stage: str) -> list[str]:
        """The names to choose from, those of packages last."""
        own = [name for one in self.built_in if one.stage == stage for name in one.methods]
        foreign = [entry.name.partition(".")[2] for entry in self.offered if entry.name.partition(".")[0] == stage]
        return list(dict.fromkeys([*own, *sorted(foreign)]))

    def same(self, stage: str, method: object, other: object) -> bool:
        """Whether two methods are one implementation's."""
        return method == other or any(
            one.stage == stage and method in one.methods and other in one.methods for one in self.built_in
        )

    def get(self, stage: str, method: object) -> Implementation:
        """The implementation that `method` chooses.

        Raises:
            ConfigError: there is none of this name, or more than one.
            PluginError: the package that offers it is broken; names the package.
        """
        own = [one for one in self.built_in if one.stage == stage and method in one.methods]
        foreign = [entry for entry in self.offered if entry.name == f"{stage}.{method}"]
        if len(own) + len(foreign) > 1:
            owners = [PROGRAM for _ in own] + [f"the package {_package(entry)}" for entry in foreign]
            raise ConfigError(
                f"the implementation {method!r} of the stage {stage} is offered by {' and by '.join(owners)}: "
                "uninstall a package, since results of the two could be mistaken for each other"
            )
        if own:
            return own[0]
        if foreign:
            name = foreign[0].name
            if name not in self._loaded:
                self._loaded[name] = load(foreign[0])
            return self._loaded[name]
        choices = ", ".join(self.methods(stage))
        raise ConfigError(f"configuration key '{stage}.method' must be one of {choices}; got {method!r}")


def load(entry: EntryPoint) -> Implementation:
    """The implementation that a package offers.

    Raises:
        PluginError: it cannot be imported, or is not what its name says; names the package.
    """
    package = _package(entry)
    broken = f"the package {package} is broken, so {entry.name} cannot be used"
    try:
        found = entry.load()
    except Exception as error:  # whatever a foreign module does when it is imported
        raise PluginError(f"{broken}: {entry.value} does not load ({type(error).__name__}: {error})") from error
    if not isinstance(found, Implementation):
        raise PluginError(f"{broken}: {entry.value} is no Implementation but {type(found).__name__}")
    stage, _, method = entry.name.partition(".")
    if found.stage != stage or found.methods != (method,):
        raise PluginError(
            f"{broken}: {entry.value} implements {found.stage} as {', '.join(found.methods)}; the name of its entry "
            f"point, the stage and the one name in the config's method must agree"
        )
    return replace(found, package=package)


@cache
def installed() -> Registry:
    """What this Python installation offers; packages are looked up once in a process."""
    return Registry(BUILT_IN, tuple(entry_points(group=GROUP)))


def unknown_names(registry: Registry) -> list[str]:
    """A sentence for each entry point whose name leads nowhere, so that nothing could ever choose it."""
    return [
        f"the package {_package(entry)} offers {entry.name!r}, which is no STAGE.METHOD of a stage "
        f"({', '.join(STAGES)})"
        for entry in registry.offered
        if entry.name.partition(".")[0] not in STAGES
    ]


def _package(entry: EntryPoint) -> Package:
    assert entry.dist is not None  # entry points of installed packages have one
    return Package(entry.dist.name, entry.dist.version)
