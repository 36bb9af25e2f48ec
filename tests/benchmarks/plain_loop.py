"""What `ss4d dataset run` is measured against: a loop over clips and stages in one process, with all in memory.

`python -m tests.benchmarks.plain_loop FOLDER OUT KEY=VALUE...` makes the assets of the clips in a folder. Nothing is
looked up, checked or stored but the files of the last stage, and torch uses all processors. The last word that it
prints is how many seconds that took, without its start.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ss4d.pipelines.config import RunConfig, load_config
from ss4d.pipelines.networks import Model, open_model
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.stages.input_files import input_digest
from ss4d.stages.types import Value, silent

SEED = 42


def make_asset(source: Path, folder: Path, config: RunConfig, model: Model) -> None:
    """Takes one clip through all stages; `folder` is for the files of the last one."""
    folder.mkdir(parents=True)
    values: dict[str, Value] = {}
    roles = [role for known in config.stages().values() for role in known.roles]
    recipe = {"source": input_digest(source), "weights": {role: model.fingerprint(role) for role in roles}}
    for stage, implementation in config.stages().items():
        inputs = StageInputs(
            implementation=implementation,
            recipe=recipe,
            source=source,
            input_config=config.input,
            results={name: values[name] for name in implementation.inputs},
            model=model,
            seed=SEED,
            folder=folder,
            progress=silent,
        )
        value = implementation.run(config.section(stage), inputs)
        if value is not None:
            values[stage] = value


def main(clips: Path, out: Path, overrides: Sequence[str]) -> None:
    """Loads the networks, and makes the assets one after the other."""
    config = load_config("tiny", overrides)
    model = open_model(config, "cpu")
    config = config.resolve(model.folder)
    for role in (role for known in config.stages().values() for role in known.roles):
        model.network(role)
    begun = time.perf_counter()
    for clip in sorted(clips.iterdir()):
        make_asset(clip, out / clip.name, config, model)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
