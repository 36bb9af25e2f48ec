"""Trains a model on clips it makes itself, with nothing but torch, numpy, numba and safetensors.

`ss4d train` does the same and more: it takes records from a data folder, and models from the hub to start from.
"""

import argparse
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from ss4d.stages.errors import InputError, ModelError, TrainingError
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.training.options import OPTIONS, OUT, RECIPE, Option, TrainOptions
from ss4d.stages.training.run import run_training
from ss4d.stages.training.training import training_of

FAILED, INTERRUPTED = 1, 130  # exit codes, as of `ss4d`


def main() -> int:
    """Parses, trains, and says what went wrong in one sentence; the exit code is 0 also when the time was up."""
    given = _parser().parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs beside it with Ctrl-C ignored
    try:
        training = training_of(TrainOptions(**vars(given)), lambda path: ModelFolder.open(Path(path)), _say)
        run_training(training, _say)
    except (InputError, ModelError, TrainingError) as error:
        _say(str(error))
        return FAILED
    except OSError as error:
        if error.errno is None:  # not the system's: a defect
            raise
        _say(f"{error.filename or given.out} cannot be used: {error.strerror}")
        return FAILED
    except KeyboardInterrupt:
        _say("interrupted; checkpoints and finished steps are kept, and the same command goes on from the last of them")
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ss4d.stages.training", description=__doc__)
    parser.add_argument("recipe", choices=RECIPE.choices, help=RECIPE.help)
    parser.add_argument("--out", type=OUT.kind, metavar=OUT.metavar, required=True, help=OUT.help)
    for name, option in OPTIONS.items():
        if option.kind is bool:
            parser.add_argument(f"--{name}", action="store_true", help=option.help)
        else:
            parser.add_argument(
                f"--{name}",
                type=partial(_value, option),
                choices=option.choices or None,
                default=option.default,
                metavar=option.metavar,
                help=option.help,
            )
    return parser


def _value(option: Option, word: str) -> Any:
    """What `word` stands for.

    Raises:
        argparse.ArgumentTypeError: if it is no such number, or too little.
    """
    try:
        value = option.kind(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number that can be taken here") from error
    if option.least is not None and not value >= option.least:
        raise argparse.ArgumentTypeError(f"{word!r} is too little: take {option.least} or more")
    return value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  a command's output


if __name__ == "__main__":
    sys.exit(main())
