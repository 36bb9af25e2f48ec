"""Trains a model on clips it makes itself, with nothing but torch, numpy, numba and safetensors.

`ss4d train` does the same and more: it takes records from a data folder, and models from the hub to start from.
"""

import argparse
import math
import signal
import sys
import time
from pathlib import Path

import torch

from ss4d.stages.errors import InputError, ModelError, TrainingError
from ss4d.stages.ops.device import resolve_device
from ss4d.stages.ops.kernel_choice import training_ops
from ss4d.stages.processors import num_processors
from ss4d.stages.training.folder import read_start
from ss4d.stages.training.options import Training
from ss4d.stages.training.recipe import RECIPES
from ss4d.stages.training.run import run_training
from ss4d.stages.training.steps import STEPS

FAILED, INTERRUPTED = 1, 130  # exit codes, as of `ss4d`


def main() -> int:
    """Parses, trains, and says what went wrong in one sentence; the exit code is 0 also when the time was up."""
    parser = argparse.ArgumentParser(prog="python -m ss4d.stages.training", description=__doc__)
    parser.add_argument("recipe", choices=list(RECIPES))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="becomes a model folder")
    parser.add_argument("--only", choices=list(STEPS), help="do this step alone")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop with a checkpoint after this long")
    parser.add_argument("--init", type=Path, metavar="DIR", help="a model folder to go on from")
    parser.add_argument(
        "--lora", type=_count, metavar="RANK", help="learn adapters of this rank on the flows; with --init"
    )
    parser.add_argument("--steps", type=_count, metavar="N", help="optimizer steps, instead of the recipe's")
    parser.add_argument("--rate", type=float, default=1.0, metavar="PART", help="of the recipe's learning rates")
    parser.add_argument("--fresh", action="store_true", help="make new clips for every step, instead of a pool")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs beside it with Ctrl-C ignored
    try:
        device = resolve_device(given.device)
        ops = training_ops(device, _say)
        training = Training(
            recipe=RECIPES[given.recipe],
            out=given.out,
            device=torch.device(device),
            ops=ops,
            seed=given.seed,
            only=given.only,
            deadline=time.monotonic() + 60 * given.minutes,
            start=None if given.init is None else read_start(given.init, ops),
            lora=given.lora,
            steps=given.steps,
            rate=given.rate,
            fresh=given.fresh,
            workers=num_processors(),
        )
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


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is too little or no whole number: take 1 or more")
    return int(word)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  a command's output


if __name__ == "__main__":
    sys.exit(main())
