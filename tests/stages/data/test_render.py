"""The rasterizer against a slow plain one, and what light, windows and depth must obey."""

import numpy as np
import pytest

from ss4d.stages.data.mesh import AnimatedMesh, Doubles, assemble
from ss4d.stages.data.render import UNLIT, Light, Window, render, render_surface
from ss4d.stages.data.shapes import ellipsoid
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.types import Camera

LAMP = Light(
    np.array([[0.6, 0.0, 0.8]], np.float32),
    (0.7, 0.6, 0.5),
    (0.4, 0.45, 0.5),
    (0.2, 0.1, 0.1),
    specular=0.3,
    shininess=9.0,
)


def soup(seed: int, count: int, frames: int = 1) -> AnimatedMesh:
    """Random triangles, not connected to each other."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(-0.3, 0.3, (frames, count, 1, 3))
    vertices = (center + rng.uniform(-0.2, 0.2, (frames, count, 3, 3))).reshape(frames, -1, 3)
    faces = np.arange(3 * count).reshape(-1, 3)
    return AnimatedMesh(vertices.astype(np.float32), faces.astype(np.int32), rng.random((3 * count, 3), np.float32))


def plain(mesh: AnimatedMesh, camera: Camera, light: Light) -> Doubles:
    """RGBA (h, w, 4) of frame 0 by asking every triangle at every sample, in float64."""
    view = np.array(camera.world_to_camera)
    eye = -view[:3, :3].T @ view[:3, 3]
    points, normals = mesh.vertices[0].astype(np.float64), mesh.normals()[0].astype(np.float64)
    space = points @ view[:3, :3].T + view[:3, 3]
    screen = space[:, :2] / space[:, 2:] * camera.focal + (camera.width / 2, camera.height / 2)
    image = np.zeros((camera.height, camera.width, 4))
    for row in range(camera.height):
        for column in range(camera.width):
            seen = []
            for dy in (0.25, 0.75):
                for dx in (0.25, 0.75):
                    place = np.array((column + dx, row + dy))
                    best, color = 0.0, None
                    for face in mesh.faces:
                        matrix = np.vstack((screen[face].T, np.ones(3)))
                        weights = np.linalg.solve(matrix, [*place, 1]) / space[face, 2]
                        if (weights >= 0).all() and weights.sum() > best:
                            best = weights.sum()
                            share = weights / best
                            normal = share @ normals[face]
                            color = shaded(
                                share @ mesh.colors[face],
                                normal / np.linalg.norm(normal),
                                eye - share @ points[face],
                                light,
                            )
                    if color is not None:
                        seen.append(np.minimum(color, 1))
            if seen:
                image[row, column] = [*(255 * np.mean(seen, 0)), 255 * len(seen) / 4]
    return image


def shaded(albedo: Doubles, normal: Doubles, toward_eye: Doubles, light: Light) -> Doubles:
    toward = light.direction[0].astype(np.float64)
    lit = max(normal @ toward, 0)
    half = toward_eye / np.linalg.norm(toward_eye) + toward
    gloss = light.specular * max(normal @ half / np.linalg.norm(half), 0) ** light.shininess if lit > 0 else 0.0
    up = 0.5 + 0.5 * normal[2]
    ambient = np.array(light.ground) * (1 - up) + np.array(light.sky) * up
    return np.asarray(albedo * (ambient + lit * np.array(light.color)) + gloss * np.array(light.color))


@pytest.mark.parametrize(("seed", "light"), [(0, LAMP), (1, LAMP), (2, UNLIT)])
def test_pictures_match_a_slow_reference(seed: int, light: Light) -> None:
    mesh, camera = soup(seed, 12), orbit_camera(40.0 * seed + 10, 25, size=20)
    fast, slow = render(mesh, [camera], light)[0, 0].astype(float), plain(mesh, camera, light)
    off = np.abs(fast - slow).max(-1)
    # Float32 may decide a sample on an edge otherwise; that changes few pixels, if any.
    assert (off > 1.01).mean() < 0.01
    assert (fast[..., 3] > 0).mean() > 0.05


def test_every_camera_and_frame_is_drawn_as_if_alone() -> None:
    mesh = soup(3, 20, frames=3)
    cameras = [orbit_camera(yaw, 10, size=32) for yaw in (0, 90, 200)]
    light = Light(np.eye(3, dtype=np.float32), (0.5,) * 3, (0.5,) * 3, (0.5,) * 3)
    whole = render(mesh, cameras, light)
    assert whole.shape == (3, 3, 32, 32, 4)
    for v, camera in enumerate(cameras):
        for t in range(3):
            alone = AnimatedMesh(mesh.vertices[t : t + 1], mesh.faces, mesh.colors)
            lamp = Light(light.direction[t : t + 1], light.color, light.sky, light.ground)
            np.testing.assert_array_equal(whole[v, t], render(alone, [camera], lamp)[0, 0])


def test_a_window_shows_its_part_of_the_picture() -> None:
    mesh, camera = assemble([ellipsoid(1, 0.8, 0.6).shifted(x=0.3)], 1), orbit_camera(30, 20, size=64)
    whole = render(mesh, [camera], LAMP)[0, 0]
    part = render(mesh, [camera], LAMP, window=Window(16, 8, 32, 32))[0, 0]
    difference = np.abs(part.astype(int) - whole[8:40, 16:48])
    assert (difference.max(-1) > 1).mean() < 0.01
    beyond = render(mesh, [camera], LAMP, window=Window(-32, -32, 128, 64))[0, 0]
    assert beyond[:16].max() == beyond[:, -16:].max() == 0
    assert abs(beyond[..., 3].mean() * 4 - whole[..., 3].mean()) < 2


def test_unlit_is_the_albedo_and_empty_pixels_are_transparent_black() -> None:
    mesh = assemble([ellipsoid(1, 1, 1).painted((0.2, 0.4, 0.8))], 1)
    image = render(mesh, [orbit_camera(0, 0, size=48)], UNLIT)[0, 0]
    covered = image[..., 3] > 0
    np.testing.assert_array_equal(image[covered][:, :3], np.tile([51, 102, 204], (covered.sum(), 1)))
    assert image[~covered].max() == 0
    assert {0, 255} < set(np.unique(image[..., 3])) <= {0, 64, 128, 191, 255}


def test_depth_and_normals_are_those_of_a_sphere() -> None:
    mesh = assemble([ellipsoid(1, 1, 1, detail=96)], 1)
    camera = orbit_camera(70, 30, size=65)
    depth, normals = (array[0, 0] for array in render_surface(mesh, [camera]))
    view = np.array(camera.world_to_camera)
    toward_eye = -view[2, :3]
    assert depth[32, 32] == pytest.approx(2 - 0.48, abs=2e-3)
    np.testing.assert_allclose(normals[32, 32], toward_eye, atol=0.03)
    seen = np.isfinite(depth)
    rows, columns = np.nonzero(seen)
    rays = np.stack(((columns + 0.5 - 32.5) / camera.focal, (rows + 0.5 - 32.5) / camera.focal, np.ones(len(rows))), -1)
    world = (rays * depth[seen][:, None] - view[:3, 3]) @ view[:3, :3]
    np.testing.assert_allclose(np.linalg.norm(world, axis=-1), 0.48, atol=3e-3)
    np.testing.assert_allclose(normals[seen], world / 0.48, atol=0.05)
    alpha = render(mesh, [camera], UNLIT)[0, 0, ..., 3]
    assert (seen & (alpha == 0)).sum() == 0
