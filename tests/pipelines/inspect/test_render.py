"""Films of a run: from an orbit, from its cameras, from where its input was seen, beside that input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.inspect.render import Wanted, render_run
from ss4d.stages.errors import InputError
from ss4d.stages.types import silent


def film(run: Path, out: Path, **wanted: object) -> np.ndarray:
    """The pictures (t, h, w, 4), made as a folder."""
    number = render_run(open_run(run), out, Wanted(background="transparent", **wanted), silent)  # type: ignore[arg-type]
    frames = np.stack([np.asarray(Image.open(path)) for path in sorted(out.iterdir())])
    assert len(frames) == number
    return frames


def test_the_runs_cameras_and_an_orbit_show_the_same(finished_run: Path, tmp_path: Path) -> None:
    path = str(finished_run / "cameras.json")
    from_file = film(finished_run, tmp_path / "file", cameras=path)
    orbit = film(finished_run, tmp_path / "orbit", size=64, least=6)
    assert from_file.shape == orbit.shape == (len(from_file), 64, 64, 4)
    assert np.abs(from_file.astype(int) - orbit).max() <= 1


def test_from_the_inputs_camera_it_covers_what_the_input_shows(inflated_run: Path, tmp_path: Path) -> None:
    shown = film(inflated_run, tmp_path / "film", cameras="input", size=64, beside_input=True)
    assert shown.shape == (4, 64, 128, 4)
    given, drawn = shown[:, :, :64, 3] > 127, shown[:, :, 64:, 3] > 127
    assert (given & drawn).sum() / (given | drawn).sum() > 0.85
    assert np.abs(shown[0, 32, 32, :3].astype(int) - [200, 80, 40]).max() < 12, "the input's color, straight"


def test_depth_and_normals_cover_the_same(inflated_run: Path, tmp_path: Path) -> None:
    kinds = [film(inflated_run, tmp_path / kind, kind=kind, size=48, least=4) for kind in ("color", "depth", "normals")]
    assert all(np.array_equal(kinds[0][..., 3], other[..., 3]) for other in kinds[1:])
    seen = kinds[0][..., 3] > 200
    assert kinds[1][seen][:, 0].std() > 5
    assert kinds[2][seen][:, 2].min() >= 127, "all that is seen faces the camera"


def test_without_a_camera_of_the_input_a_sentence_says_so(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"camera\.method=auto"):
        render_run(open_run(finished_run), tmp_path / "film", Wanted(cameras="input"), silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wanted", "name"), [(Wanted(background="pink"), "a.mp4"), (Wanted(background="transparent"), "a.mp4")]
)
def test_wishes_that_cannot_be_met_are_told_before_anything_is_drawn(
    wanted: Wanted, name: str, finished_run: Path, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, InputError)):
        render_run(open_run(finished_run), tmp_path / name, wanted, silent)
    assert list(tmp_path.iterdir()) == []


def test_what_the_command_says(finished_run: Path, tmp_path: Path) -> None:
    words = ["render", str(finished_run), "--frames", "4", "--size", "32", "--what", "depth"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "film.webp")], env={"COLUMNS": "200"})
    assert (done.exit_code, "4 pictures: " in done.output) == (0, True), done.output
    assert Image.open(tmp_path / "film.webp").size == (32, 32)
    wrong = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "film.avi")], env={"COLUMNS": "200"})
    assert (wrong.exit_code, "a film is .mp4" in wrong.output) == (1, True)
