"""The tools that masks are refined with: GrabCut, the background of a still camera, and parts of a mask."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ss4d.stages.segmentation.grabcut import grabcut
from ss4d.stages.segmentation.masks import grown, parts, without_specks
from ss4d.stages.segmentation.plate import clean_plate
from tests.helpers.drawn_frames import SIZE, disc, draw, iou, texture


@settings(deadline=None, max_examples=10)
@given(x=st.integers(45, 75), y=st.integers(45, 75), seed=st.integers(0, 99))
def test_grabcut_moves_a_rough_mask_to_the_edge(x: int, y: int, seed: int) -> None:
    image = draw(texture(seed), [disc(x, y, 30)], [(200, 60, 60)])
    trimap = np.full((SIZE, SIZE), cv2.GC_BGD, np.uint8)
    trimap[disc(x, y, 40)] = cv2.GC_PR_BGD
    trimap[disc(x, y, 22)] = cv2.GC_PR_FGD
    assert iou(grabcut(image, trimap, 3), disc(x, y, 30)) > 0.97


def test_clean_plate_needs_a_still_camera() -> None:
    background = texture()
    masks = np.stack([disc(20 + 10 * t, 60, 15) for t in range(8)])
    near = np.stack([disc(20 + 10 * t, 60, 20) for t in range(8)])
    still = np.stack([draw(background, [mask], [(220, 60, 40)]) for mask in masks])
    plate = clean_plate(still, near)
    assert plate is not None
    assert (plate.color[plate.known] == background[plate.known]).all()
    assert plate.known.mean() > 0.95
    same, hidden = plate.differs(still[3])
    assert iou(hidden, masks[3] & plate.known) > 0.95
    assert not (same & masks[3]).any()
    stripes = np.indices((SIZE, SIZE + 64))[1] // 4 % 2 * 200
    moving = np.stack([np.repeat(stripes[:, 3 * t : 3 * t + SIZE, None], 3, -1) for t in range(8)]).astype(np.uint8)
    assert clean_plate(moving, near) is None
    assert clean_plate(still[:1], near[:1]) is None  # one frame tells nothing


def test_parts_are_sorted_and_specks_dropped() -> None:
    mask = disc(30, 30, 10) | disc(80, 80, 20) | disc(110, 10, 2)
    assert [int(part.sum()) for part in parts(mask)] == [int(disc(80, 80, 20).sum()), int(disc(30, 30, 10).sum())]
    assert (without_specks(mask) == (disc(30, 30, 10) | disc(80, 80, 20))).all()
    assert parts(np.zeros((4, 4), bool)) == []
    assert grown((10, 10, 20, 30), 1.5, 21, 100) == (6, 4, 21, 36)
