"""What training starts from and what it leaves: model folders, in the published format (docs/model.md, section 1).

A model folder that was trained here also has training/: the encoders, and what each step of training wrote.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.checkpoint import read_network, save_network
from ss4d.stages.ops.backend import Ops
from ss4d.stages.roles import IMAGE_ENCODER
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams
from ss4d.stages.training.files import whole_folder, write_whole
from ss4d.stages.training.tiny import ENCODERS, PUBLISHED, SLAT_SAMPLER, STRUCTURE_SAMPLER, file_name, pipeline


@dataclass(frozen=True, eq=False, kw_only=True)
class Start:
    """A trained model to go on from.

    Attributes:
        networks: by role; encoders only if the model comes with them.
        normalization: of its structured latents.
        structure_sampler: how it is sampled.
        slat_sampler: how it is sampled.
        origin: its name, for the model card.
    """

    networks: Mapping[str, nn.Module]
    normalization: LatentNormalization
    structure_sampler: SamplerParams = STRUCTURE_SAMPLER
    slat_sampler: SamplerParams = SLAT_SAMPLER
    origin: str

    def digest(self) -> str:
        """A hash of all weights, which identifies the model."""
        digest = blake2b(digest_size=16)
        for role, network in sorted(self.networks.items()):
            for name, tensor in sorted(network.state_dict().items()):
                digest.update(f"{role}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def read_start(folder: Path, ops: Ops) -> Start:
    """A complete model folder, such as training leaves.

    Raises:
        ModelError: naming the file at fault.
    """
    file = folder / "pipeline.json"
    try:
        args = json.loads(file.read_text())["args"]
        references = {**args["models"], IMAGE_ENCODER: args[IMAGE_ENCODER]}
        networks = {role: read_network(folder / references[role], ops) for role in PUBLISHED}
        normalization = LatentNormalization(**{k: tuple(v) for k, v in args["slat_normalization"].items()})
        samplers = [_sampler(args[name]["params"]) for name in ("sparse_structure_sampler", "slat_sampler")]
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{file} is not what a model folder has: {error!r}") from error
    return Start(
        networks={**networks, **read_encoders(folder, ops)},
        normalization=normalization,
        structure_sampler=samplers[0],
        slat_sampler=samplers[1],
        origin=folder.name,
    )


def _sampler(params: Mapping[str, Any]) -> SamplerParams:
    return SamplerParams(**{**params, "cfg_interval": tuple(params["cfg_interval"])})


def read_encoders(folder: Path, ops: Ops) -> dict[str, nn.Module]:
    """The encoders that a model folder comes with, by role: those that were trained here have them."""
    paths = {role: folder / "training" / role for role in ENCODERS}
    return {role: read_network(path, ops) for role, path in paths.items() if path.with_suffix(".json").exists()}


def save_roles(folder: Path, networks: Mapping[str, nn.Module], dtype: torch.dtype = torch.float32) -> None:
    """Writes networks of this package by role, and what belongs to them."""
    for role, network in networks.items():
        save_network(folder / file_name(role), type(network).__name__, network.args, network, dtype)


def write_model(folder: Path, start: Start, card: str) -> None:
    """Writes a model folder in half precision; its encoders beside it, in training/, in full.

    Args:
        folder: to write to; what the model was trained in stays.
        start: all networks of a model, encoders included.
        card: the text of the model card.
    """
    with whole_folder(folder / "ckpts") as draft:
        save_roles(draft, {role: start.networks[role] for role in PUBLISHED}, torch.float16)
    save_roles(folder / "training", {role: network for role, network in start.networks.items() if role in ENCODERS})
    content = pipeline(start.normalization, start.structure_sampler, start.slat_sampler)
    write_whole(folder / "MODEL_CARD.md", card.encode())
    (folder / "NOTICE.md").unlink(missing_ok=True)  # of an untrained model that lay here
    write_whole(folder / "pipeline.json", (json.dumps(content, indent=1) + "\n").encode())
