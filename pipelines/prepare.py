"""What a run is about to do, worked out from what a user asks for, before anything is computed or written."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from ss4d.pipelines.config import RunConfig, bundled_configs, load_config
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.implementation import Deferred
from ss4d.pipelines.networks import Model, open_model
from ss4d.pipelines.plan import NO_WISH, RUN, Recipes, Step, Wish, make_plan, sure_to_run
from ss4d.pipelines.registry import installed
from ss4d.pipelines.run_record import EarlierRun, read_record
from ss4d.pipelines.seed import DEFAULT_SEED, check_seed
from ss4d.stages.input_files import input_digest
from ss4d.stages.ops.device import check_device, check_word
from ss4d.storage.files import in_utf8
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore, folder_of, open_store

num_chosen = Deferred("ss4d.stages.reading.counts:num_chosen")
DEFAULT_STORE = "../../store"  # as a record says it: from the run's folder


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a user asks for."""

    source: Path
    out: Path
    config: str = "tiny"
    overrides: Sequence[str] = ()
    seed: int = DEFAULT_SEED
    device: str = "auto"
    name: str | None = None
    engine: str = "auto"  # see `ss4d.pipelines.engines.chosen_engine`
    store: str | None = None  # a folder or a URL; None: the folder store in `out`
    wish: Wish = NO_WISH


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A run that could begin.

    Attributes:
        config: with every value filled in.
        folder: of the run, which need not exist.
        before: the last run in that folder.
        location: of the store, the same from wherever it is opened.
        count_frames: counts the frames of the input that are used, and raises an InputError if it cannot be.
    """

    config: RunConfig
    model: Model
    source_digest: str
    folder: Path
    before: EarlierRun | None
    location: str
    store: ArtifactStore
    steps: Sequence[Step]
    count_frames: Callable[[], int]

    @property
    def computes(self) -> bool:
        """Whether anything is left to compute."""
        return any(step.action == RUN for step in self.steps)

    def check_input(self) -> None:
        """Raises InputError if the input is to be read, and cannot be; decodes no frame."""
        stages = self.config.stages()
        if any(step.action == RUN and stages[step.stage].source for step in self.steps):
            self.count_frames()

    @property
    def goals(self) -> list[ArtifactRef]:
        """The artifacts that are wanted."""
        refs = {step.stage: step.ref for step in self.steps}
        return [refs[goal] for goal in self.config.goals]

    @property
    def unavailable(self) -> list[str]:
        """Goals of earlier runs of this name that no package here has: their files stay as they are."""
        known = installed().stages()
        earlier = (*self.before.config.goals, *self.before.unavailable) if self.before else ()
        return [goal for goal in dict.fromkeys(earlier) if goal not in known]

    @property
    def notice(self) -> str | None:
        """What a user of the model must know, if any stage uses it."""
        return self.model.notice if any(known.roles for known in self.config.stages().values()) else None


def prepare(options: RunOptions, *, to_run: bool = True) -> Preparation:
    """Reads the configuration, the hashes of input and weights, and what is stored; loads no network, writes nothing.

    Args:
        options: what a user asks for.
        to_run: whether it is to run on this machine, which must then have the device.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError: one sentence each, see `ss4d.pipelines.errors`.
    """
    config = load_config(options.config, options.overrides)
    name = _run_name(options)
    check_seed(options.seed)
    location = _location(options)
    (check_device if to_run else check_word)(options.device)
    source_digest = input_digest(options.source)
    folder = options.out / "runs" / name
    before = read_record(folder)
    if before is not None:  # a branch that has moved since does not change the run
        config = config.keeping(before.model.revisions)
    model = open_model(config, options.device)
    _refuse_clash(options, folder, before, source_digest)
    store = open_store(location)
    if before is None:
        _check_precision(options, config.resolve(model.folder), model, store)
    recipes = _recipes(config, model, source_digest, options.seed)
    kept = _kept_goals(recipes, model, before, store)
    recipes = _recipes(recipes.config.wanting([*recipes.config.goals, *kept]), model, source_digest, options.seed)
    previous = {stage: known.recipe for stage, known in before.stages.items()} if before else {}
    steps = make_plan(recipes, store, wish=options.wish, previous=previous)
    running = [step.stage for step in steps if step.action == RUN]
    recipes.config.check(running)
    count = count_frames(options, recipes.config)
    model.check_precision(recipes.config.uses(running), count)
    return Preparation(
        config=recipes.config,
        model=model,
        source_digest=source_digest,
        folder=folder,
        before=before,
        location=location,
        store=store,
        steps=steps,
        count_frames=count,
    )


def _check_precision(options: RunOptions, config: RunConfig, model: Model, store: ArtifactStore) -> None:
    """Refuses float16 on a CPU where that can be told before gigabytes of weights are hashed."""
    if model.is_half_on_cpu(config.uses(config.stages())):
        present = {ref.stage for ref in store.refs()}
        running = sure_to_run(config, present, options.wish)
        model.check_precision(config.uses(running), count_frames(options, config))


def count_frames(options: RunOptions, config: RunConfig) -> Callable[[], int]:
    """Counts the frames of the input that are used, once however often it is asked: a long video takes seconds."""
    return cache(lambda: int(num_chosen(options.source, config.input)))


def _recipes(config: RunConfig, model: Model, source_digest: str, seed: int) -> Recipes:
    fingerprints = {role: model.fingerprint(role) for known in config.stages().values() for role in known.roles}
    return Recipes(config.resolve(model.folder), source_digest, seed, fingerprints)


def _kept_goals(recipes: Recipes, model: Model, before: EarlierRun | None, store: ArtifactStore) -> Iterator[str]:
    """Goals of the last run of this name that nobody asks for now, but that are stored and would come out the same.

    Their files lie in the run's folder: to ask for another goal must not remove them.
    """
    for goal in before.config.goals if before else ():
        if goal in recipes.config.goals or before is None or goal not in before.stages:
            continue
        if goal in installed().stages():
            config = recipes.config.wanting((goal,))
            if config.implementations()[goal].leaves_out:
                continue
            recipe = _recipes(config, model, recipes.source_digest, recipes.seed).of_all()[goal]
            if recipe == before.stages[goal].recipe and store.contains(ArtifactRef(goal, artifact_key(recipe))):
                yield goal


def recorded(options: RunOptions) -> Mapping[str, str]:
    """Where configuration and store lie, as the record says it, so that it can be found from any folder."""
    named = options.config in bundled_configs()
    return {
        "configuration": options.config if named else str(Path(options.config).absolute()),
        "store": DEFAULT_STORE if options.store is None else _location(options),
    }


def _location(options: RunOptions) -> str:
    return str((options.out / "store").absolute()) if options.store is None else store_location(options.store)


def store_location(store: str) -> str:
    """What --store names, the same from wherever it is opened: an absolute path, or a URL.

    Raises:
        ConfigError: if it is no address, or has credentials in it.
    """
    if in_utf8(store) != store:
        raise ConfigError(f"--store: the name {in_utf8(store)} is not UTF-8, as the record of a run is: rename it")
    if (folder := folder_of(store)) is not None:
        return str(folder.absolute())
    try:
        url = urlsplit(store)
    except ValueError as error:
        raise ConfigError(f"--store: {store!r} is no address ({error})") from error
    if url.password or (url.username and url.scheme != "abfss") or url.query:
        raise ConfigError(
            f"--store {url.scheme}://...: leave credentials and options out of the address, since the record keeps it; "
            "they are taken from the environment"
        )
    return store


def _run_name(options: RunOptions) -> str:
    if options.name is None:
        return re.sub(r"[^\w.-]+", "_", options.source.absolute().stem).strip("._-") or "clip"
    if not re.fullmatch(r"\w[\w.-]*", options.name):
        raise ConfigError(
            f"--name may hold letters, digits, '_' and, after the first, '.' and '-'; got {options.name!r}"
        )
    return options.name


def _refuse_clash(options: RunOptions, folder: Path, before: EarlierRun | None, source_digest: str) -> None:
    """Two inputs may have one name; the results of the first must not be lost to the second."""
    if before and before.input.path != in_utf8(str(options.source.absolute())) and before.input.sha256 != source_digest:
        raise ConfigError(
            f"{folder} holds the results of another input, {before.input.path}: "
            "give this run a name of its own with --name"
        )
