"""What training starts from and what it leaves: model folders, in the published format (docs/model.md, section 1).

A model folder that was trained here also has training/: the encoders, and what each step of training wrote.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import nn

from ss4d.stages.model_folder import ModelFolder, NetworkFiles
from ss4d.stages.nn.checkpoint import save_network
from ss4d.stages.ops.backend import Ops
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams
from ss4d.stages.training.files import whole_folder, write_whole
from ss4d.stages.training.tiny import ENCODERS, PUBLISHED, SLAT_SAMPLER, STRUCTURE_SAMPLER, file_name, pipeline
from ss4d.stages.weights import describe, load_network


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


def read_start(folder: ModelFolder, ops: Ops, origin: str) -> Start:
    """The model in `folder`, called `origin`, in float32 on the CPU, ready to be trained further.

    Raises:
        ModelError: naming the file, and the option or tensor at fault.
    """
    files = {role: folder.files(role) for role in PUBLISHED}
    files |= {role: saved for role in ENCODERS if (saved := saved_files(folder.path / "training", role))}
    return Start(
        networks={role: read_network(of_role, ops) for role, of_role in files.items()},
        normalization=folder.slat_normalization,
        structure_sampler=folder.structure_sampler,
        slat_sampler=folder.slat_sampler,
        origin=origin,
    )


def read_network(files: NetworkFiles, ops: Ops) -> nn.Module:
    """A network in float32 on the CPU, to be trained further.

    Raises:
        ModelError: naming the file, and the option or tensor at fault.
    """
    return load_network(describe(files.description), files, ops, device=torch.device("cpu"))


def saved_files(folder: Path, role: str) -> NetworkFiles | None:
    """The files of the network that `save_roles` wrote to `folder` for `role`; None if there are none."""
    description, weights = (folder / f"{file_name(role)}{suffix}" for suffix in (".json", ".safetensors"))
    return NetworkFiles(weights=weights, description=description) if description.exists() else None


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
