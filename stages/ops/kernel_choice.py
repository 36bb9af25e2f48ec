"""The kernels there are, and the choice among them: the one place for runs, for training and for trials.

A kernel is taken only if a small trial on the device gives what torch's own gives (`ss4d.stages.ops.probes`), so that a
package that can be imported and does not work is found before anything is computed.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import torch

from ss4d.stages.errors import ModelError
from ss4d.stages.ops.attention import attention
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.conv import conv
from ss4d.stages.ops.cuda import (
    PACKAGES,
    flash3_attention,
    gsplat_rasterizer,
    nvdiffrast_triangles,
    spconv_convolution,
    xformers_attention,
)
from ss4d.stages.ops.kernel_names import AUTO, Part
from ss4d.stages.ops.probes import (
    PICTURE_TOLERANCE,
    TOLERANCES,
    TRIANGLE_TOLERANCE,
    attention_error,
    convolution_error,
    picture_error,
    picture_seconds,
    triangle_error,
)
from ss4d.stages.ops.rasterize import Rasterize, rasterize
from ss4d.stages.ops.rasterize_torch import torch_rasterizer
from ss4d.stages.ops.splat import Draw
from ss4d.stages.ops.splat_loops import draw_in_loops
from ss4d.stages.ops.splat_sorted import draw_sorted
from ss4d.stages.ops.triangles import SeeTriangles, see_triangles
from ss4d.stages.ops.varlen import HALF, torch_varlen

LOG = logging.getLogger("ss4d")
ANY = frozenset({torch.float32, *HALF})


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One way to do a part of the work.

    Attributes:
        make: gives it for a device, or raises anything at all.
        dtypes: that it is for; numbers of others it leaves to torch's kernel.
        gradients: whether training can use it.
        reference: whether it is taken without a trial, as others are compared with it, on the CPU in float64.
    """

    make: Callable[[torch.device], Any]
    dtypes: frozenset[torch.dtype] = ANY
    gradients: bool = True
    reference: bool = False


KERNELS: Mapping[Part, Mapping[str, Kernel]] = {
    "attention": {
        "flash3": Kernel(make=lambda _: flash3_attention(), dtypes=HALF),
        "varlen": Kernel(make=lambda _: torch_varlen(), dtypes=HALF),
        "xformers": Kernel(make=lambda _: xformers_attention()),
        "torch": Kernel(make=lambda _: attention, reference=True),
    },
    "convolution": {
        # spconv keeps tables with the sites that a pass without gradients makes without what gradients need.
        "spconv": Kernel(make=lambda _: spconv_convolution(), gradients=False),
        "torch": Kernel(make=lambda _: conv, reference=True),
    },
    "rasterizer": {
        "gsplat": Kernel(make=gsplat_rasterizer, gradients=False),
        "torch": Kernel(make=lambda device: torch_rasterizer(device, draw_on(device))),
        "numba": Kernel(make=lambda _: rasterize, gradients=False, reference=True),  # on the CPU, whatever the device
    },
    "triangles": {
        "nvdiffrast": Kernel(make=nvdiffrast_triangles, gradients=False),
        "numba": Kernel(make=lambda _: see_triangles, gradients=False, reference=True),
    },
}
# Best first for each kind of device; of those in one row the faster one, where it is measured.
ORDER: Mapping[Part, Mapping[str, Sequence[Sequence[str]]]] = {
    "attention": {"cuda": [["flash3"], ["varlen"], ["xformers"], ["torch"]], "cpu": [["torch"]]},
    "convolution": {"cuda": [["spconv"], ["torch"]], "cpu": [["torch"]]},
    "rasterizer": {"cuda": [["gsplat"], ["torch", "numba"]], "cpu": [["numba"], ["torch"]]},
    "triangles": {"cuda": [["nvdiffrast"], ["numba"]], "cpu": [["numba"]]},
}
# How the rasterizer `torch` blends, with which training and fitting draw, too: on a CPU, loops that are compiled for it
# are many times faster than sums over tensors.
DRAWS: Mapping[str, Draw] = {"cuda": draw_sorted, "cpu": draw_in_loops}
PARTS: tuple[Part, ...] = get_args(Part)
OF_NETWORKS: tuple[Part, ...] = ("attention", "convolution")
EVERYTHING_AUTO: Mapping[Part, str] = dict.fromkeys(PARTS, AUTO)


@dataclass(frozen=True, kw_only=True)
class Use:
    """What kernels are wanted for.

    Attributes:
        device: that they run on.
        dtypes: that networks compute in there.
        gradients: whether they are to be trained.
    """

    device: torch.device
    dtypes: frozenset[torch.dtype]
    gradients: bool = False


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one kernel.

    Attributes:
        kernel: to be called; None if it cannot be used.
        problem: why it cannot be used, in words that follow its name; "" if it can.
        absent: whether that is because it is not there, or not for this use, rather than because it does not work.
        errors: by the name of a dtype, as `ss4d.stages.ops.probes` measures them; none of the one compared with.
    """

    kernel: Any = None
    problem: str = ""
    absent: bool = False
    errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which kernel does a part of the work.

    Attributes:
        kernel: its name.
        asked_for: whether by that name.
        passed_over: why not, by the names of those before it in the table; the others were not looked at.
    """

    kernel: str
    asked_for: bool
    passed_over: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ChosenKernels:
    """The kernels of a process by the part of the work that they do, and how they were chosen."""

    kernels: Mapping[Part, Any]
    choices: Mapping[Part, Choice]

    @property
    def ops(self) -> Ops:
        """Those that networks are given."""
        return Ops(attention=self.kernels["attention"], conv=self.kernels["convolution"])

    @property
    def rasterize(self) -> Rasterize:
        """The one that draws."""
        draw: Rasterize = self.kernels["rasterizer"]
        return draw

    @property
    def see(self) -> SeeTriangles:
        """The one that draws triangles."""
        see: SeeTriangles = self.kernels["triangles"]
        return see

    def __or__(self, others: "ChosenKernels") -> "ChosenKernels":
        """These and others, for other parts of the work."""
        return ChosenKernels(kernels={**self.kernels, **others.kernels}, choices={**self.choices, **others.choices})

    def said(self) -> str:
        """The choice and its reasons in a line."""
        return "kernels: " + "; ".join(f"{part} {_said(choice)}" for part, choice in self.choices.items())

    def recorded(self) -> dict[str, Any]:
        """The same as plain data."""
        return {part: asdict(choice) for part, choice in self.choices.items()}


def choose_kernels(
    use: Use, wanted: Mapping[Part, str] = EVERYTHING_AUTO, parts: Sequence[Part] = PARTS
) -> ChosenKernels:
    """One kernel for each of these parts: the one that is asked for by name, or the best that is there and works.

    Raises:
        ModelError: one that is asked for is not for this device, is not there, or does not work.
    """
    chosen = {part: _chosen(part, wanted[part], use) for part in parts}
    return ChosenKernels(
        kernels={part: kernel for part, (kernel, _) in chosen.items()},
        choices={part: choice for part, (_, choice) in chosen.items()},
    )


def draw_on(device: torch.device) -> Draw:
    """How Gaussians are drawn with gradients on a device; see `ss4d.stages.ops.splat`."""
    return DRAWS[device.type]


def kernels_for(part: Part, device: torch.device) -> list[str]:
    """The names of those that a device can have, best first."""
    return [name for row in ORDER[part][device.type] for name in row]


def try_kernel(part: Part, name: str, use: Use, *, trusting: bool = False) -> Trial:
    """Makes a kernel and measures its errors in each number format that it would be used in.

    Args:
        part: of the work.
        name: of the kernel.
        use: that would be made of it.
        trusting: leave out the measuring of a reference.
    """
    kernel = KERNELS[part][name]
    if use.gradients and not kernel.gradients:
        return Trial(problem="has no gradients", absent=True)
    if not (dtypes := kernel.dtypes & use.dtypes):
        problem = f"is for {_listed(kernel.dtypes)}, and networks compute in {_listed(use.dtypes)}"
        return Trial(problem=problem, absent=True)
    try:
        made = kernel.make(use.device)
    except Exception as error:  # whatever a package does when it is imported
        LOG.debug("%s cannot be loaded", name, exc_info=True)
        return Trial(problem=_not_loaded(error), absent=_is_absent(error))
    if trusting and kernel.reference:
        return Trial(kernel=made)
    try:
        errors = _errors(part, made, use, dtypes)
    except Exception as error:  # a missing kernel for this card, for example
        LOG.debug("%s fails", name, exc_info=True)
        return Trial(problem=f"fails when it is tried: {_line(error)}")
    limits = {_name(dtype): limit for dtype, limit in TOLERANCES.items()}
    limits |= {"picture": PICTURE_TOLERANCE, "triangles": TRIANGLE_TOLERANCE}
    for what, off in errors.items():
        if not off <= limits[what]:
            return Trial(problem=f"gives wrong results ({what}: off by {off:.2g})", errors=errors)
    return Trial(kernel=made, errors=errors)


def _chosen(part: Part, word: str, use: Use) -> tuple[Any, Choice]:
    names = kernels_for(part, use.device)
    if word != AUTO:
        if word not in names:
            raise ModelError(f"kernels.{part}: {word} is not for {use.device.type}; choose {', '.join((AUTO, *names))}")
        trial = try_kernel(part, word, use, trusting=True)
        if trial.problem:
            raise ModelError(f"kernels.{part}: {word} {trial.problem}; {AUTO} takes the best that works")
        return trial.kernel, Choice(kernel=word, asked_for=True, passed_over={})
    problems: dict[str, str] = {}
    for row in ORDER[part][use.device.type]:
        trials = {name: try_kernel(part, name, use, trusting=True) for name in row}
        problems |= {name: trial.problem for name, trial in trials.items() if trial.problem}
        if working := {name: trial.kernel for name, trial in trials.items() if not trial.problem}:
            name, slower = _fastest(working)
            return working[name], Choice(kernel=name, asked_for=False, passed_over=problems | slower)
    reasons = "; ".join(f"{name} {problem}" for name, problem in problems.items())
    raise ModelError(f"no kernel for {part} works here: {reasons}")


def _fastest(working: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The one that is left, or the faster one of rasterizers; and why not the others."""
    if len(working) == 1:
        return next(iter(working)), {}
    seconds = {name: picture_seconds(kernel) for name, kernel in working.items()}
    first, *others = sorted(seconds, key=seconds.__getitem__)
    return first, {
        name: f"is slower ({1000 * seconds[name]:.0f} ms a picture, {first} {1000 * seconds[first]:.0f} ms)"
        for name in others
    }


def _errors(part: Part, kernel: Any, use: Use, dtypes: frozenset[torch.dtype]) -> dict[str, float]:
    if part == "rasterizer":
        return {"picture": picture_error(kernel)}
    if part == "triangles":
        return {"triangles": triangle_error(kernel)}
    measure = attention_error if part == "attention" else convolution_error
    return {_name(dtype): measure(kernel, use.device, dtype, gradients=use.gradients) for dtype in dtypes}


def _not_loaded(error: Exception) -> str:
    if _is_absent(error):
        return "is not installed"
    return str(error) if isinstance(error, ModelError) else f"cannot be imported: {_line(error)}"


def _is_absent(error: Exception) -> bool:
    return isinstance(error, ModuleNotFoundError) and error.name in PACKAGES


def _line(error: Exception) -> str:
    """An exception in a line: those of packages may fill a screen."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:200]}"


def _said(choice: Choice) -> str:
    if choice.asked_for:
        return f"{choice.kernel}, as asked for"
    reasons = ", ".join(f"{name} {problem}" for name, problem in choice.passed_over.items())
    return f"{choice.kernel} ({reasons})" if reasons else choice.kernel


def _listed(dtypes: frozenset[torch.dtype]) -> str:
    return " and ".join(sorted(map(_name, dtypes)))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
