"""What the function of an implementation is given besides its configuration."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.pipelines.errors import PluginError
from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.networks import Model
from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig, input_digest, input_state
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.ops.triangles import SeeTriangles
from ss4d.stages.types import Progress, Value, Video
from ss4d.stages.user_masks import read_masks
from ss4d.stages.video_io import read_frames, read_video

V = TypeVar("V", bound=Value)
Files = Mapping[str, Path]  # by name; not to be changed


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What a stage's function is given; it gets what its implementation declares, no more.

    Attributes:
        implementation: whose function it is.
        recipe: of the result: a key stands for the input and the weights that are really read.
        results: what the stages that it takes gave, by name: a value, or files.
        folder: empty; a stage that gives files writes them here.
        progress: to be called with (steps done, steps in all).
        model: the model folder, its networks and the kernels they run on.
    """

    implementation: Implementation
    recipe: Mapping[str, Any]
    source: Path
    input_config: InputConfig
    results: Mapping[str, Value | Files]
    model: Model
    seed: int
    folder: Path
    progress: Progress

    @overload
    def value(self, stage: str) -> Any: ...
    @overload
    def value(self, stage: str, kind: type[V]) -> V: ...
    def value(self, stage: str, kind: type[Value] | None = None) -> Any:
        """The value that the named stage gave, which must be of type `kind` where that is said."""
        result = self._result(stage)
        if not isinstance(result, kind or Value):
            given = type(result).__name__ if isinstance(result, Value) else "files"
            wanted = kind.__name__ if kind else "a value"
            raise PluginError(f"{self.implementation} asks {stage} for {wanted}, but it gives {given}")
        return result

    def gives(self, stage: str) -> bool:
        """Whether the named stage, which the implementation takes as an optional one, gives a result in this run."""
        return self.implementation.given.get(stage, stage) in self.results

    def files(self, stage: str) -> Files:
        """The files that the named stage gave, by their names with '/' between folders; they must not be changed."""
        result = self._result(stage)
        if isinstance(result, Value):
            raise PluginError(f"{self.implementation} asks {stage} for files, but it gives {type(result).__name__}")
        return result

    def video(self, *, side: int | None = None, room: int | None = None, beside: int = 0) -> Video:
        """The frames of the run's input that its configuration chooses; see `read_video` for what they may take.

        Raises:
            InputError: it cannot be read, or is not what it was when the run was planned.
        """
        self._declared(self.implementation.source, "source=True")
        with self._unchanged():
            return read_video(
                self.source, self.input_config, side=side, room=room, beside=beside, progress=self.progress
            )

    def frames(self, *, side: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """The same frames once more, one after the other (h, w, 3 or 4) and none held; raises as `video` does."""
        self._declared(self.implementation.source, "source=True")
        with self._unchanged():
            yield from read_frames(self.source, self.input_config, side=side)

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Refuses an input that is another one than was planned with, once it has been read."""
        before = input_state(self.source)
        yield
        if input_digest(self.source) != self.recipe["source"] or input_state(self.source) != before:
            raise InputError(
                f"{self.source} has changed since this was planned, and nothing is stored of it: run again, for a clip "
                "of a dataset after `ss4d dataset init`"
            )

    def masks(self, path: Path, video: Video) -> Tensor:
        """The masks in a file or folder that the configuration names, of the frames of `video`: (t, h, w) uint8."""
        self._declared(self.implementation.source, "source=True")
        return read_masks(path, self.source, self.input_config, video)

    def network(self, role: str) -> Any:
        """The network that plays `role` in the model folder, ready to run on the run's device.

        Raises:
            ModelError: it cannot be loaded, or is not what it was when the run was planned.
        """
        self._declared(role in self.implementation.roles, f"roles with {role!r}")
        network = self.model.network(role)
        self.model.check_loaded(role, self.recipe["weights"][role])
        return network

    @property
    def rasterize(self) -> Rasterize:
        """Draws a frame of Gaussians from a camera; see `ss4d.stages.ops.rasterize`."""
        self._declared(self.implementation.draws, "draws=True")
        return self.model.rasterize

    @property
    def see(self) -> SeeTriangles:
        """Tells which triangles the samples of a picture see; see `ss4d.stages.ops.triangles`."""
        self._declared(self.implementation.triangles, "triangles=True")
        return self.model.see

    def generator(self) -> torch.Generator:
        """A CPU generator, so that a seed means the same on every device (docs/model.md, section 4)."""
        self._declared(self.implementation.seeded, "seeded=True")
        return torch.Generator().manual_seed(self.seed)

    def _result(self, stage: str) -> Value | Files:
        self._declared(self.gives(stage), f"inputs with {stage!r}")
        return self.results[self.implementation.given.get(stage) or stage]

    def _declared(self, given: bool, words: str) -> None:
        """What is not declared is not in the key, and a result could be mistaken for another."""
        if not given:
            raise PluginError(f"{self.implementation} uses what it does not declare: it must say {words}")
