"""The rasterizer written for reading: every pixel looks at every Gaussian, in float64, with no tiles and no early end.

Axes: camera space is x right, y down, z forward; images are (row, column) with pixel centers at half integers.
"""

import torch
from torch import Tensor

from ss4d.stages.ops.geometry import quaternion_to_matrix
from ss4d.stages.ops.rasterize import (
    BLACK,
    JACOBIAN_LIMIT,
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    MIP_SPLATTING,
    NEAR,
    Color,
    ScreenFilter,
)
from ss4d.stages.types import Camera, GaussianClip


def rasterize(
    gaussians: GaussianClip,
    camera: Camera,
    *,
    background: Color = BLACK,
    screen_filter: ScreenFilter = MIP_SPLATTING,
) -> tuple[Tensor, Tensor]:
    """RGB (height, width, 3) and alpha (height, width) in float64; see `ss4d.stages.ops.rasterize.rasterize`."""
    view = torch.tensor(camera.world_to_camera, dtype=torch.float64)
    points = gaussians.means.double() @ view[:3, :3].T + view[:3, 3]
    order = points[:, 2].argsort(stable=True)
    order = order[points[order, 2] > NEAR]
    points = points[order]
    centers = camera.focal * points[:, :2] / points[:, 2:] + torch.tensor([camera.width, camera.height]) / 2
    covariances = _screen_covariances(gaussians, order, points, view, camera)
    filtered = covariances + screen_filter.variance * torch.eye(2)
    opacities = gaussians.opacities[order].double()
    if screen_filter.compensate:
        opacities = opacities * (covariances.det() / filtered.det()).clamp(min=0).sqrt()
    colors = gaussians.colors[order].double().clamp(min=0)
    precisions = torch.linalg.inv(filtered)
    paint = torch.tensor(background, dtype=torch.float64)
    columns = torch.arange(camera.width, dtype=torch.float64) + 0.5
    rgb, alpha = [], []
    for row in range(camera.height):
        pixels = torch.stack((columns, torch.full_like(columns, row + 0.5)), dim=-1)
        offsets = pixels[:, None] - centers  # (width, n, 2)
        dx, dy = offsets.unbind(-1)
        quadratic = precisions[:, 0, 0] * dx**2 + 2 * precisions[:, 0, 1] * dx * dy + precisions[:, 1, 1] * dy**2
        alphas = (opacities * (-quadratic / 2).exp()).clamp(max=MAX_ALPHA)
        alphas = torch.where(alphas >= MIN_ALPHA, alphas, 0)
        after = (1 - alphas).cumprod(dim=1)
        before = torch.cat((torch.ones_like(after[:, :1]), after), dim=1)[:, :-1]
        weights = torch.where(after >= MIN_TRANSMITTANCE, alphas * before, 0)
        covered = weights.sum(dim=1)
        rgb.append(weights @ colors + (1 - covered)[:, None] * paint)
        alpha.append(covered)
    return torch.stack(rgb), torch.stack(alpha)


def _screen_covariances(gaussians: GaussianClip, order: Tensor, points: Tensor, view: Tensor, camera: Camera) -> Tensor:
    """2D covariances (n, 2, 2) in pixel^2 of the rows `order`, whose centers in camera space are `points`."""
    rotations = quaternion_to_matrix(gaussians.quats[order].double())
    axes = view[:3, :3] @ rotations * gaussians.scales[order].double()[:, None, :]
    limit = JACOBIAN_LIMIT * torch.tensor([camera.width, camera.height]) / (2 * camera.focal)
    slope = (points[:, :2] / points[:, 2:]).clamp(-limit, limit)
    jacobian = torch.cat((torch.eye(2).expand(len(points), 2, 2), -slope[:, :, None]), dim=-1)
    jacobian = camera.focal / points[:, 2, None, None] * jacobian
    projected = jacobian.double() @ axes
    return projected @ projected.transpose(1, 2)
