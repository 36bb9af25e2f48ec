"""The networks of one model folder on one device: loaded when their stage comes, and given back after it.

Small ones stay, and so do those that a worker keeps for its next clip.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from ss4d.stages.errors import ModelError
from ss4d.stages.memory import Memory
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.nn.flow_trunk import KEPT_BYTES, FlowTrunk
from ss4d.stages.ops.device import Device, resolve_device
from ss4d.stages.ops.kernel_choice import OF_NETWORKS, ChosenKernels, Use, choose_kernels
from ss4d.stages.ops.kernel_names import Part
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.ops.triangles import SeeTriangles
from ss4d.stages.precision import Precision
from ss4d.stages.weights import check_role, describe, load_role, torso_dtype, warn_of_left_over

LOG = logging.getLogger("ss4d")
# What torsos may compute in. Whether a published network does so in float16, its own file says.
TORSO_DTYPES: Mapping[Precision, frozenset[torch.dtype]] = {
    "published": frozenset({torch.float16, torch.float32}),
    "float32": frozenset({torch.float32}),
    "float16": frozenset({torch.float16}),
    "bfloat16": frozenset({torch.bfloat16}),
}
SMALL = 1 << 26  # bytes of a weights file: loading such a network again would cost more than its memory is worth
# Of a device's memory that networks may take from one clip to the next; the rest is for what passes through them.
KEPT_SHARE = 1 / 4
# Bytes of keys and values of image tokens that a flow keeps from one sampler step to the next.
KEPT_TOKENS: Mapping[Memory, int] = {"default": KEPT_BYTES, "low": 0}


class Loader:
    """Chooses the kernels for a device, and loads networks that run on them.

    Attributes:
        device: that computes.
        kernels: that are chosen so far.
        ops: those of them that networks are given.

    Args:
        folder: that describes the networks.
        device: "auto", "cpu" or "cuda".
        precision: of the torsos.
        kernels: by part of the work, a kernel's name, or "auto".
        memory: whether flows keep what saves time.
        left_over: is filled with the tensors that no network took, by the name of their file.
        fingerprint: gives that of the weights that play a role, as they lie there now.

    Raises:
        InputError: there is no such device here.
        ModelError: a kernel that is asked for cannot be used.
    """

    def __init__(
        self,
        folder: ModelFolder,
        device: str,
        precision: Precision,
        kernels: Mapping[Part, str],
        memory: Memory,
        left_over: dict[str, list[str]],
        fingerprint: Callable[[str], str],
    ) -> None:
        self.device = resolve_device(device)
        self._use = Use(device=torch.device(self.device), dtypes=TORSO_DTYPES[precision])
        self._wanted = kernels
        self.kernels = choose_kernels(self._use, kernels, OF_NETWORKS)
        LOG.info("%s", self.kernels.said())
        self.ops = self.kernels.ops
        self._folder, self._left_over, self._fingerprint = folder, left_over, fingerprint
        self.loaded: dict[str, str] = {}  # fingerprints of the networks that were loaded last, by role
        self._precision: Precision = precision
        self._kept_tokens = KEPT_TOKENS[memory]
        self._networks: dict[str, nn.Module] = {}
        self._kept: set[str] = set()

    @cached_property
    def rasterize(self) -> Rasterize:
        """What draws Gaussians: chosen when something is to be drawn, since to try it takes a second or more.

        Raises:
            ModelError: a kernel that is asked for cannot be used.
        """
        return self._chosen("rasterizer").rasterize

    @cached_property
    def see(self) -> SeeTriangles:
        """What draws triangles; chosen when it is asked for.

        Raises:
            ModelError: a kernel that is asked for cannot be used.
        """
        return self._chosen("triangles").see

    def _chosen(self, part: Part) -> ChosenKernels:
        chosen = choose_kernels(self._use, self._wanted, (part,))
        LOG.info("%s", chosen.said())
        self.kernels |= chosen
        return chosen

    def _dtype(self, role: str) -> torch.dtype:
        return torso_dtype(describe(self._folder.description(role)), self._precision)

    def keep_if_room(self, roles: Collection[str], share: float) -> None:
        """Keeps the networks that play `roles` loaded from now on, if they leave room enough.

        Args:
            roles: that more than one clip will need.
            share: of the device's memory that this process may use.

        Raises:
            ModelError: a file is missing or wrong; names it.
        """
        folder, precision = self._folder, self._precision
        size = sum(check_role(folder, role, precision, left_over=self._note_left_over) for role in roles)
        if size <= KEPT_SHARE * share * device_memory(self.device):
            self._kept.update(roles)

    def prepare(self, roles: Collection[str]) -> None:
        """Loads the networks that stay, and looks through the files of the others, which are loaded when they are due.

        Raises:
            ModelError: a file is missing or wrong; names it.
        """
        for role in roles:
            if self._stays(role):
                self.network(role)
            else:
                check_role(self._folder, role, self._precision, left_over=self._note_left_over)

    def release(self, roles: Collection[str]) -> None:
        """Gives the networks that play `roles` back, but for those that stay."""
        for role in roles:
            if not self._stays(role):
                self._networks.pop(role, None)

    def _stays(self, role: str) -> bool:
        return role in self._kept or self._folder.files(role).weights.stat().st_size <= SMALL

    def network(self, role: str) -> Any:
        """The network that plays `role`, ready to run.

        Raises:
            ModelError: a file is missing or wrong; names it.
        """
        if role not in self._networks:
            device = torch.device(self.device)
            if self._precision == "published":  # else the configuration says it
                LOG.info("%s computes in %s", role, str(self._dtype(role)).removeprefix("torch."))
            before = self._state(role)
            network = load_role(
                self._folder, role, self.ops, device=device, precision=self._precision, left_over=self._note_left_over
            )
            if isinstance(network, FlowTrunk):
                network.kept_bytes = self._kept_tokens
            self.loaded[role] = self._fingerprint(role)
            if self._state(role) != before:
                raise ModelError(f"{self._folder.files(role).weights} has changed while it was read; run again")
            self._networks[role] = network
        return self._networks[role]

    def _state(self, role: str) -> list[tuple[int, int, int]]:
        """What changes when a file of a network does."""
        files = self._folder.files(role)
        try:
            found = [path.stat() for path in (files.weights, files.description) if path is not None]
        except OSError as error:
            raise ModelError(f"{files.weights} cannot be read ({error.strerror})") from error
        return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in found]

    def _note_left_over(self, file: Path, tensors: Sequence[str]) -> None:
        if file.name not in self._left_over:
            self._left_over[file.name] = list(tensors)
            warn_of_left_over(file, tensors)


def device_memory(device: Device) -> int:
    """Bytes of memory that networks on a device share."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total
