"""The golden numbers that come with the program, computed again on a device in each number format."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from ss4d.pipelines.doctor.findings import Check, guarded
from ss4d.stages.golden_cases import Output, cases, run_case
from ss4d.stages.ops.backend import Ops

GROUP = "golden numbers"
FOLDER = Path(__file__).with_name("golden")
# Root mean square of the error over that of the numbers: what rounding of sums in another order, and of every weight
# and every row to half precision, does to networks of few layers.
LIMITS = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def case_checks(device: torch.device, ops: Ops, dtypes: Sequence[torch.dtype]) -> Iterator[Check]:
    """Each case in each format; on a CPU in float32 by the tolerances of its own that tests have, too."""
    for path in cases(FOLDER):
        for dtype in dtypes:
            name = f"{path.name} {str(dtype).removeprefix('torch.')}"
            yield from guarded(GROUP, name, partial(_computed, path, name, device, ops, dtype))


def _computed(path: Path, name: str, device: torch.device, ops: Ops, dtype: torch.dtype) -> Iterator[Check]:
    # Convolutions of cuDNN would else round float32 to ten bits, and hide a mistake of that size.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        outputs = run_case(path, device=device, ops=ops, dtype=dtype)
    yield _check(name, outputs, device, dtype)


def _check(name: str, outputs: Sequence[Output], device: torch.device, dtype: torch.dtype) -> Check:
    precisely = dtype == torch.float32 and device.type == "cpu"
    wrong = [o.name for o in outputs if not o.rms_error <= LIMITS[dtype] or (precisely and not o.ok)]
    worst = max(output.rms_error for output in outputs)
    says = f"off by {worst:.1e} of the numbers' size, {LIMITS[dtype]:.0e} is allowed"
    return Check(
        group=GROUP,
        name=name,
        state="failed" if wrong else "ok",
        says=says + (f"; wrong: {', '.join(wrong)}" if wrong else ""),
        numbers={output.name: {"largest": output.error, "rms": output.rms_error} for output in outputs},
    )
