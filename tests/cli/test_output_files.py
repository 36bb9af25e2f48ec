"""What a user names as a file to write or to read, and what is a folder, a pipe or a device, is refused at once."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ss4d.pipelines.bench.bench import BenchOptions, run_bench
from ss4d.pipelines.dataset.report.report import write_report as write_sheet
from ss4d.pipelines.doctor.doctor import DoctorOptions, examine
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.report import write_report
from ss4d.pipelines.store.housekeeping import pack_run
from ss4d.stages.errors import InputError
from ss4d.stages.rendering.files import check_target
from ss4d.stages.rendering.paths import file_path
from ss4d.stages.types import silent

NOTHING: object = None  # nobody looks at the run, the dataset or the machine before
WRITERS: dict[str, Callable[[Path], object]] = {
    "report": lambda path: write_report(NOTHING, path, print),  # type: ignore[arg-type]
    "dataset report": lambda path: write_sheet(NOTHING, path, progress=silent),  # type: ignore[arg-type]
    "pack": lambda path: pack_run(path.parent, path, silent),
    "doctor": lambda path: examine(DoctorOptions(device="cpu", out=path), print),
    "bench": lambda path: run_bench(BenchOptions(device="cpu", out=path)),
    "render": lambda path: check_target(path, None),
}


def kinds(folder: Path, ending: str) -> list[Path]:
    made = [folder / f"{kind}.{ending}" for kind in ("pipe", "folder", "device")]
    os.mkfifo(made[0])
    made[1].mkdir()
    made[2].symlink_to("/dev/zero")
    return made


@pytest.mark.parametrize("command", WRITERS)
def test_only_a_file_is_replaced(tmp_path: Path, command: str) -> None:
    pipe, folder, device = kinds(tmp_path, "webp" if command == "render" else "zip")
    for path in (pipe, folder, device):
        with pytest.raises((ConfigError, InputError), match=rf"{path.name} is there already, and no file: give anoth"):
            WRITERS[command](path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert device.is_symlink()


def test_cameras_come_from_a_file(tmp_path: Path) -> None:
    for path in kinds(tmp_path, "json"):
        with pytest.raises(InputError, match=rf"{path.name} is no file"):
            file_path(path, 3, None)
