"""Colors, depth and normals of shapes that are known, and the files that they become."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from ss4d.stages.errors import InputError
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.rendering.files import write_film
from ss4d.stages.rendering.kinds import depth_range, pictures
from ss4d.stages.rendering.paths import CameraPath
from ss4d.stages.types import GaussianClip
from tests.helpers.foreign_readers import gaussians
from tests.stages.export.clips import lopsided

WHITE = (1.0, 1.0, 1.0)


def wall(normal: tuple[float, float, float]) -> GaussianClip:
    """A disc of flat opaque Gaussians through the origin, facing `normal`."""
    facing = torch.nn.functional.normalize(torch.tensor(normal), dim=0)
    across = torch.linalg.cross(facing, torch.tensor([0.0, 0.0, 1.0]))
    across = across / across.norm()
    along = torch.linalg.cross(facing, across)
    steps = torch.linspace(-0.4, 0.4, 60)
    u, v = torch.meshgrid(steps, steps, indexing="ij")
    means = u.reshape(-1, 1) * across + v.reshape(-1, 1) * along
    count = len(means)
    return gaussians(
        means, torch.full((count, 3), 0.008), torch.tensor([1.0, 0, 0, 0]).repeat(count, 1), torch.ones(count, 3),
        torch.full((count,), 0.95),
    )  # fmt: skip


def shots(*yaws: float, size: int = 64) -> CameraPath:
    return CameraPath([(0, orbit_camera(yaw, 0, size=size)) for yaw in yaws], 12.0)


def middle(picture: torch.Tensor) -> torch.Tensor:
    return picture[24:40, 24:40].mean((0, 1))


def test_colors_are_the_rasterizers_without_its_background() -> None:
    clip, path = lopsided(300), shots(180, 90)
    for picture, (_, camera) in zip(pictures(clip, path, "color", rasterize), path.shots, strict=True):
        rgb, alpha = rasterize(clip, camera, background=WHITE)
        assert_close(picture[..., 3], alpha)
        mixed = picture[..., :3] * alpha[..., None] + (1 - alpha[..., None])
        assert_close(mixed, rgb.clamp(0, 1), atol=2e-3, rtol=0)


def test_depth_is_lighter_where_it_is_nearer() -> None:
    path = shots(180)
    tilted = wall((0.0, -1.0, 1.0))  # its upper edge is farther away
    near, far = depth_range(tilted, path)
    assert (near, far) == pytest.approx((2 - 0.4 * 0.5**0.5, 2 + 0.4 * 0.5**0.5), abs=1e-3)
    (picture,) = pictures(tilted, path, "depth", rasterize)
    column = picture[:, 32, 0][picture[:, 32, 3] > 0.9]
    assert column[0] < 0.25 < 0.55 == pytest.approx(float(middle(picture)[0]), abs=0.03)
    assert column[-1] > 0.85
    assert bool((column.diff() > -1e-3).all())


@pytest.mark.parametrize(
    ("normal", "color"),
    [
        ((0.0, -1.0, 0.0), (0.5, 0.5, 1.0)),  # toward the front's camera
        ((1.0, -1.0, 0.0), (0.854, 0.5, 0.854)),  # its right
        ((0.0, -1.0, 1.0), (0.5, 0.854, 0.854)),  # up
    ],
)
def test_normals_are_right_up_and_toward_the_camera(
    normal: tuple[float, float, float], color: tuple[float, float, float]
) -> None:
    (picture,) = pictures(wall(normal), shots(180), "normals", rasterize)
    assert_close(middle(picture)[:3], torch.tensor(color), atol=0.03, rtol=0)


def film(count: int = 5) -> list[torch.Tensor]:
    """A square that moves to the right over nothing."""
    frames = torch.zeros(count, 32, 48, 4)
    for t, frame in enumerate(frames):
        frame[8:24, 4 + 4 * t : 20 + 4 * t] = torch.tensor([0.9, 0.2, 0.1, 1.0])
    return list(frames)


def test_an_mp4_has_its_background_and_rate(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", film(), 12.5, (0.0, 0.0, 1.0))
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == 12.5
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 5
    assert np.abs(frames[0][2, 2].astype(int) - [0, 0, 255]).max() < 12
    assert np.abs(frames[0][16, 10].astype(int) - [230, 51, 26]).max() < 25


@pytest.mark.parametrize("name", ["film.webp", "film.gif"])
def test_animated_pictures_play_and_keep_their_alpha(name: str, tmp_path: Path) -> None:
    write_film(tmp_path / name, film(), 10.0, None)
    image = Image.open(tmp_path / name)
    assert (image.n_frames, image.info.get("loop")) == (5, 0)
    for t in range(5):
        image.seek(t)
        image.load()
        pixels = np.asarray(image.convert("RGBA"))
        assert image.info["duration"] == 100
        assert pixels[2, 2, 3] == 0
        assert pixels[16, 12 + 4 * t, 3] == 255
        assert np.abs(pixels[16, 12 + 4 * t, :3].astype(int) - [230, 51, 26]).max() < 20
        assert t == 0 or pixels[16, 4 * t, 3] == 0, "what was drawn before is gone"


def test_a_folder_of_pngs_has_alpha_or_a_background(tmp_path: Path) -> None:
    write_film(tmp_path / "clear", film(), 10.0, None)
    write_film(tmp_path / "solid", film(), 10.0, WHITE)
    assert sorted(path.name for path in (tmp_path / "clear").iterdir()) == [f"000{k}.png" for k in range(1, 6)]
    assert np.asarray(Image.open(tmp_path / "clear/0002.png"))[2, 2].tolist() == [0, 0, 0, 0]
    assert np.asarray(Image.open(tmp_path / "solid/0002.png"))[2, 2].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("name", "background"), [("film.avi", WHITE), ("film.png", WHITE), ("film.mp4", None)])
def test_films_that_cannot_be_are_told(
    name: str, background: tuple[float, float, float] | None, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"\.webp"):
        write_film(tmp_path / name, film(), 10.0, background)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "0001.png").write_bytes(b"a picture of somebody")
    with pytest.raises(InputError, match="empty folder"):
        write_film(tmp_path / "mine", film(), 10.0, WHITE)
    assert (tmp_path / "mine" / "0001.png").read_bytes() == b"a picture of somebody"
