"""What training must remember to go on exactly where it was: weights, their average, the optimizer, and the step."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.training.files import UNFINISHED, remove_folder, whole_folder

KEPT = 2  # newest checkpoints that stay
_WEIGHTS, _AVERAGE = "weights", "average"  # beside what the optimizers remember of each weight


@dataclass(frozen=True, eq=False)
class State:
    """The moving parts of a training run, as the tensors that the run itself works on.

    Attributes:
        weights: by name.
        average: of the weights, by the same names.
        optimizers: each weight is in one of them.
    """

    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizers: Sequence[torch.optim.Optimizer]


def save_state(folder: Path, step: int, state: State, settings: Mapping[str, Any]) -> None:
    """Writes the state after `step` steps to a folder of its own in `folder`; only the newest `KEPT` stay."""
    tensors = {f"{_WEIGHTS}/{name}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"{_AVERAGE}/{name}": tensor for name, tensor in state.average.items()}
    for name, weight in state.weights.items():
        for optimizer in state.optimizers:  # of a weight that no loss has depended on none remembers anything
            moments = optimizer.state.get(weight, {})
            tensors |= {f"{moment}/{name}": tensor for moment, tensor in moments.items()}
    with whole_folder(folder / f"{step:08d}") as draft:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, draft / "state.safetensors"
        )
        (draft / "step.json").write_text(json.dumps({"step": step, "settings": settings}, indent=1))
    for old in _complete(folder)[:-KEPT]:
        remove_folder(old)


def load_state(folder: Path, state: State, settings: Mapping[str, Any], say: Callable[[str], None]) -> int:
    """Brings `state` to the newest whole checkpoint in `folder`; the number of steps it has seen, 0 without any.

    Args:
        folder: of checkpoints.
        state: to change in place.
        settings: of the run, as they were saved.
        say: told of damaged checkpoints.

    Raises:
        InputError: if the checkpoint comes from a run with other settings or networks, or all are damaged.
    """
    found = _complete(folder)
    if not found:
        return 0
    for checkpoint in reversed(found):
        try:
            content = json.loads((checkpoint / "step.json").read_text())
            step, saved = int(content["step"]), content["settings"]
            tensors = load_file(checkpoint / "state.safetensors")
            break
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            say(f"{checkpoint} is damaged, so the one before is taken: {error}")
    else:
        raise InputError(f"all checkpoints in {folder} are damaged; delete {folder.parent} to begin that step anew")
    if saved != json.loads(json.dumps(settings)):
        raise InputError(f"{folder} holds another training; choose another --out, or delete it to start anew")
    if {name.partition("/")[2] for name in tensors} != set(state.weights):
        raise InputError(f"{folder} holds a run of other networks; choose another --out, or delete it to start anew")
    with torch.no_grad():
        for name, weight in state.weights.items():
            weight.copy_(tensors[f"weights/{name}"])
            state.average[name].copy_(tensors[f"average/{name}"])
    moments: dict[str, dict[str, Tensor]] = {name: {} for name in state.weights}
    for key, tensor in tensors.items():
        moment, _, name = key.partition("/")
        if moment not in (_WEIGHTS, _AVERAGE):
            moments[name][moment] = tensor
    names = {weight: name for name, weight in state.weights.items()}
    for optimizer in state.optimizers:
        memory = optimizer.state_dict()
        held = [names[weight] for group in optimizer.param_groups for weight in group["params"]]
        memory["state"] = {index: moments[name] for index, name in enumerate(held) if moments[name]}
        optimizer.load_state_dict(memory)
    return step


def _complete(folder: Path) -> list[Path]:
    """Checkpoints from the oldest to the newest; what was being written when a run was killed is not among them."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(UNFINISHED))
