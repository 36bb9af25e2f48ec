"""Each way of finding the object against objects drawn here, whose masks are known; and what cannot be segmented."""

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ss4d.stages.errors import InputError, ModelError
from ss4d.stages.segmentation import saliency, saliency_net
from ss4d.stages.segmentation.color_key import color_key_masks
from ss4d.stages.segmentation.config import SegmentationConfig
from ss4d.stages.segmentation.field import field_box
from ss4d.stages.segmentation.segment import segment
from ss4d.stages.types import Clip, Video
from tests.helpers.drawn_frames import SIZE, disc, draw, iou, source_mask, texture, video


def test_alpha_of_the_input_is_kept_exactly(caplog: pytest.LogCaptureFixture) -> None:
    rgba = np.zeros((2, SIZE, SIZE, 4), np.uint8)
    rgba[..., :3] = texture()
    rgba[0, disc(50, 60), 3] = 255
    rgba[0, disc(50, 60, 10), 3] = 100
    with caplog.at_level(logging.INFO, logger="ss4d"):
        clip = segment(SegmentationConfig(size=64), Video(frames=torch.from_numpy(rgba), fps=12.0))
    assert clip.method == "alpha"
    assert clip.fps == 12.0
    assert clip.crop.tolist() == [20, 30, 80, 90]
    assert clip.alpha[0, 32, 32] == 100
    assert clip.confidence.tolist() == [1, 0]  # the second frame shows nothing
    assert clip.alpha[1].max() == 0
    assert "alpha of the input, confidence 1.00" in caplog.text
    assert "not seen in frames [1]" in caplog.text


@settings(deadline=None, max_examples=15)
@given(
    key=st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)),
    x=st.integers(40, 80),
    y=st.integers(40, 80),
    seed=st.integers(0, 99),
)
def test_color_key_finds_a_disc_on_any_flat_color(key: tuple[int, int, int], x: int, y: int, seed: int) -> None:
    color = tuple((k + 128) % 256 for k in key)
    noise = np.random.default_rng(seed).integers(-3, 4, (SIZE, SIZE, 3))
    image = draw(np.full((SIZE, SIZE, 3), key, np.uint8), [disc(x, y)], [color]).astype(int) + noise
    clip = segment(SegmentationConfig(size=128), video([image.clip(0, 255).astype(np.uint8)]))
    assert clip.method == "color_key"
    assert iou(source_mask(clip.alpha[0], clip.crop), disc(x, y)) > 0.97


def test_color_key_rim_highlight_and_hole() -> None:
    image = draw(np.full((SIZE, SIZE, 3), 255, np.uint8), [disc(60, 60, 40)], [(200, 40, 40)])
    soft = cv2.GaussianBlur(image, (0, 0), 1.0)
    soft[60:62, 50:52] = 255  # a highlight of the background's color
    soft[70:85, 55:70] = 255  # a hole
    alpha, confidence = color_key_masks(torch.from_numpy(soft)[None])
    assert alpha[0, 60, 50] == 255
    assert alpha[0, 77, 62] == 0
    assert confidence.tolist() == [1.0]
    rim = alpha[0, 60]
    assert ((rim > 20) & (rim < 235)).sum() >= 2  # soft on both sides
    covered = float(alpha.float().sum() / 255)
    assert covered == pytest.approx(disc(60, 60, 40).sum() - 15 * 15, rel=0.02)


def test_saliency_finds_a_textured_object_and_repeats_itself(caplog: pytest.LogCaptureFixture) -> None:
    truth = [disc(50 + 5 * t, 60) for t in range(4)]
    frames = [draw(texture(), [mask], [(220, 60, 40)]) for mask in truth]
    steps: list[tuple[int, int]] = []
    state = np.random.default_rng(0)
    cv2.setRNGSeed(int(state.integers(1000)))
    with caplog.at_level(logging.INFO, logger="ss4d"):
        clip = segment(SegmentationConfig(size=128), video(frames), progress=lambda i, n: steps.append((i, n)))
    assert clip.method == "saliency"
    for t, mask in enumerate(truth):
        assert iou(source_mask(clip.alpha[t], clip.crop), mask) > 0.9
    assert clip.confidence.min() > 0.8
    assert "saliency (u2netp + GrabCut), confidence 0.9" in caplog.text
    assert steps[-1][0] == steps[-1][1]
    cv2.setRNGSeed(int(state.integers(1000)))
    again = segment(SegmentationConfig(size=128), video(frames))
    assert torch.equal(clip.rgb, again.rgb)
    assert torch.equal(clip.alpha, again.alpha)


@pytest.mark.parametrize("hint", [{"point": (30, 62)}, {"box": (8, 38, 52, 84)}])
def test_a_hint_chooses_among_two_objects_and_follows_it(hint: dict[str, tuple[int, ...]]) -> None:
    truth = [disc(30 + 3 * t, 60, 18) for t in range(3)]
    frames = [draw(texture(), [mask, disc(90, 60, 20)], [(220, 60, 40), (230, 220, 80)]) for mask in truth]
    clip = segment(SegmentationConfig(size=128, method="saliency", **hint), video(frames))
    for t, mask in enumerate(truth):
        assert iou(source_mask(clip.alpha[t], clip.crop), mask) > 0.8


@pytest.mark.parametrize("hint", [{"point": (30, 62)}, {"box": (8, 38, 52, 84)}, {}])
def test_a_hint_chooses_among_parts_of_alpha(hint: dict[str, tuple[int, ...]]) -> None:
    rgba = np.full((1, SIZE, SIZE, 4), 90, np.uint8)
    rgba[..., 3] = 255 * (disc(30, 60, 18) | disc(90, 60, 20))
    clip = segment(SegmentationConfig(size=64, **hint), Video(frames=torch.from_numpy(rgba), fps=12.0))
    truth = disc(30, 60, 18) if hint else disc(30, 60, 18) | disc(90, 60, 20)
    assert iou(source_mask(clip.alpha[0], clip.crop), truth) > 0.95


@pytest.mark.parametrize(
    ("frames", "config", "sentence"),
    [
        (np.zeros((1, 8, 8, 4), np.uint8), SegmentationConfig(), "fully transparent .* segmentation.method=saliency"),
        (np.full((2, 40, 40, 3), 90, np.uint8), SegmentationConfig(), "in any of 2 frames by color key"),
        (np.full((1, 8, 8, 4), 255, np.uint8), SegmentationConfig(method="alpha"), "has no alpha that hides anything"),
        (
            np.zeros((1, 8, 8, 3), np.uint8),
            SegmentationConfig(point=(8, 2)),
            r"\(8, 2\) lies outside the frames of 8 x 8",
        ),
        (np.zeros((1, 8, 8, 3), np.uint8), SegmentationConfig(box=(4, 2, 3, 7)), "left < right <= 8"),
    ],
)
def test_what_cannot_be_segmented(frames: np.ndarray, config: SegmentationConfig, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        segment(config, Video(frames=torch.from_numpy(frames), fps=12.0))


def test_config_takes_lists_and_refuses_nonsense() -> None:
    assert SegmentationConfig.model_validate({"box": [1, 2, 3, 4]}).box == (1, 2, 3, 4)
    for wrong in ({"box": [1, 2, 3]}, {"point": [-1, 2]}, {"point": ["1", 2]}, {"method": "magic"}, {"sise": 518}):
        with pytest.raises(ValidationError):
            SegmentationConfig.model_validate(wrong)


def test_a_damaged_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency_net, "WEIGHTS", tmp_path / "u2netp.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        saliency_net.SaliencyNet()
    (tmp_path / "u2netp.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="has sha256"):
        saliency_net.SaliencyNet()


def test_where_the_network_is_undecided_it_looks_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    sure: dict[int, float] = {}

    class Net:
        """As sure of half of each view as is said of its side."""

        def __call__(self, view: np.ndarray, side: int) -> np.ndarray:
            looked.append(side)
            found = np.zeros((4, 4), np.float32)
            found[:2] = sure[side]
            return found

    monkeypatch.setattr(saliency, "SaliencyNet", Net)
    eye = saliency.Eye(saliency.Effort(side=192, closer=256))
    view = np.zeros((4, 4, 3), np.uint8)
    for first, second, best, sides in (
        (0.9, 1.0, 0.9, [192]),
        (0.6, 0.8, 0.8, [192, 256]),
        (0.6, 0.51, 0.6, [192, 256]),
        (0.0, 0.7, 0.7, [192, 256]),
    ):
        sure.update({192: first, 256: second})
        assert eye.look(view).max() == pytest.approx(best)
        assert looked == sides
        looked.clear()


def test_frames_that_were_reduced_are_measured_in_pixels_of_the_input() -> None:
    rgba = np.full((1, SIZE, SIZE, 4), 90, np.uint8)
    rgba[..., 3] = 255 * (disc(30, 60, 18) | disc(90, 60, 20))
    whole, small = (Video(frames=torch.from_numpy(rgba), fps=12.0, scale=scale) for scale in (1.0, 4.0))
    near = segment(SegmentationConfig(size=64, point=(30, 60)), whole)
    far = segment(SegmentationConfig(size=64, point=(120, 240)), small)
    assert torch.equal(near.alpha, far.alpha)
    assert far.crop.tolist() == [4 * side for side in near.crop.tolist()]
    with pytest.raises(InputError, match="lies outside the frames of 480 x 480"):
        segment(SegmentationConfig(size=64, point=(480, 0)), small)


def clip_of(frames: list[np.ndarray], **config: Any) -> Clip:
    return segment(SegmentationConfig(size=128, **config), video(frames))


def with_alpha(alphas: list[np.ndarray]) -> list[np.ndarray]:
    color = draw(np.full((SIZE, SIZE, 3), 150, np.uint8), [disc(60, 60)], [(200, 40, 40)])
    return [np.dstack([color, alpha.astype(np.uint8)]) for alpha in alphas]


def test_alpha_that_is_too_faint_to_see_is_none() -> None:
    noise = np.random.default_rng(0)
    for most in (4, 20):
        alphas = [np.where(disc(50, 60), 255, noise.integers(0, most, (SIZE, SIZE))) for _ in range(2)]
        clip = clip_of(with_alpha(alphas))
        assert clip.method == "alpha"
        assert clip.crop.tolist() == [20, 30, 80, 90]


def rounded(radius: int) -> np.ndarray:
    alpha = np.full((SIZE, SIZE), 255, np.uint8)
    corner = np.hypot(*(np.mgrid[:radius, :radius] - radius)) > radius
    for turned in range(4):
        np.rot90(alpha, turned)[:radius, :radius][corner] = 0
    return alpha


def soft_row() -> np.ndarray:
    alpha = np.full((SIZE, SIZE), 255, np.uint8)
    alpha[0] = 128
    return alpha


def margin() -> np.ndarray:
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[6:-6, 8:-8] = 255
    return alpha


@pytest.mark.parametrize("alpha", [rounded(12), soft_row(), margin()], ids=["rounded", "soft row", "margin"])
def test_alpha_that_shows_the_picture_as_it_is_is_no_mask(alpha: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    frames = with_alpha([alpha] * 2)
    clip = clip_of(frames)
    assert clip.method == "color_key"
    assert iou(source_mask(clip.alpha[0], clip.crop), disc(60, 60)) > 0.95
    assert "it is not taken for a mask; segmentation.method=alpha does so" in caplog.text
    assert clip_of(frames, method="alpha").method == "alpha"


def test_frames_without_alpha_among_others_are_found_by_their_looks(caplog: pytest.LogCaptureFixture) -> None:
    clip = clip_of(with_alpha([255 * disc(60, 60), np.full((SIZE, SIZE), 255), 255 * disc(60, 60)]))
    assert clip.method == "alpha"
    assert iou(source_mask(clip.alpha[1], clip.crop), disc(60, 60)) > 0.95
    assert "alpha hides nothing in frames [1]; color key instead" in caplog.text


def test_bars_around_the_picture_are_no_object() -> None:
    truth = [disc(50 + 5 * t, 60) for t in range(3)]
    frames = [draw(np.full((SIZE, SIZE, 3), 230, np.uint8), [mask], [(40, 160, 60)]) for mask in truth]
    for box in ((5, 5, 115, 115), (0, 12, 120, 108)):
        barred = [np.zeros_like(frame) for frame in frames]
        for bars, frame in zip(barred, frames, strict=True):
            bars[box[1] : box[3], box[0] : box[2]] = frame[box[1] : box[3], box[0] : box[2]]
        clip = clip_of(barred)
        assert clip.method == "color_key"
        for t, mask in enumerate(truth):
            assert iou(source_mask(clip.alpha[t], clip.crop), mask) > 0.95
    assert field_box(torch.from_numpy(np.stack(frames))) is None


def test_a_soft_shadow_is_background_and_a_gray_object_is_not() -> None:
    ground = cv2.GaussianBlur((255 - 130 * disc(70, 85, 18)).astype(np.float32), (0, 0), 6)
    shaded = np.repeat(np.rint(ground)[..., None], 3, -1).astype(np.uint8)
    for color in ((40, 160, 60), (150, 150, 150)):
        alpha, confidence = color_key_masks(torch.from_numpy(draw(shaded, [disc(50, 45, 20)], [color]))[None])
        assert iou(alpha[0].numpy() > 127, disc(50, 45, 20)) > 0.97
        assert confidence[0] == 1


@pytest.mark.parametrize("outlined", [True, False])
def test_white_on_white_is_found_or_doubted(outlined: bool, caplog: pytest.LogCaptureFixture) -> None:
    image = draw(np.full((SIZE, SIZE, 3), 255, np.uint8), [disc(60, 60, 30)], [(252, 252, 252)])
    image = draw(image, [disc(50, 55, 4), disc(70, 55, 4)], [(20, 20, 20)] * 2)
    if outlined:
        image[disc(60, 60, 31) & ~disc(60, 60, 29)] = 205
    clip = clip_of([image])
    assert iou(source_mask(clip.alpha[0], clip.crop), disc(60, 60, 30)) > 0.9
    assert outlined or "unsure of the object in frames [0], with a confidence down to 0.50" in caplog.text


def test_an_outline_around_the_background_is_doubted() -> None:
    ring = draw(np.full((SIZE, SIZE, 3), 90, np.uint8), [disc(60, 60, 40), disc(60, 60, 36)], [(0, 0, 0), (90, 90, 90)])
    noise = np.random.default_rng(0).integers(-4, 5, ring.shape)
    assert clip_of([(ring + noise).astype(np.uint8)]).confidence[0] < 0.4


def test_a_flash_has_a_background_of_its_own() -> None:
    frames = [
        draw(np.full((SIZE, SIZE, 3), level, np.uint8), [disc(60, 60)], [(200, 40, 40)]) for level in (90, 250, 90)
    ]
    clip = clip_of(frames)
    for t in range(3):
        assert iou(source_mask(clip.alpha[t], clip.crop), disc(60, 60)) > 0.95


def test_the_largest_of_two_subjects_is_kept_and_followed(caplog: pytest.LogCaptureFixture) -> None:
    truth = [disc(35 + 6 * t, 40, 20) for t in range(5)]
    others = [disc(90 - 6 * t, 95, 16) for t in range(5)]
    frames = [
        draw(np.full((SIZE, SIZE, 3), 250, np.uint8), [a, b], [(40, 90, 200), (200, 90, 40)])
        for a, b in zip(truth, others, strict=True)
    ]
    clip = clip_of(frames)
    for t, mask in enumerate(truth):
        assert iou(source_mask(clip.alpha[t], clip.crop), mask) > 0.95
    assert "2 objects stand out, and the largest is kept; segmentation.point=[x, y]" in caplog.text


def written(level: int) -> np.ndarray:
    """What a watermark adds to each pixel (SIZE, SIZE, 1): three letters at the lower right."""
    mark = np.zeros((SIZE, SIZE, 1), np.int16)
    for letter in range(3):
        mark[102:118, 84 + 11 * letter : 92 + 11 * letter] = level
    return mark


@pytest.mark.parametrize(("background", "level"), [(250, -60), (90, 60)])
def test_a_watermark_is_no_part_of_an_object_that_moves(
    background: int, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the object passes behind it."""
    plain = np.full((SIZE, SIZE, 3), background, np.uint8)
    truth = [disc(x, 60 + x / 3, 24) for x in (34, 48, 62, 76)]
    frames = [draw(plain, [mask], [(40, 90, 200)]) + written(level) for mask in truth]
    clip = clip_of([frame.clip(0, 255).astype(np.uint8) for frame in frames])
    for t, mask in enumerate(truth):
        assert iou(source_mask(clip.alpha[t], clip.crop), mask) > 0.95
    assert "what stays where it is beside the object, such as a watermark, is left out" in caplog.text


def test_a_mark_at_the_border_of_a_still_picture_is_left_out_and_doubted() -> None:
    image = draw(np.full((SIZE, SIZE, 3), 250, np.uint8), [disc(50, 50, 28)], [(40, 90, 200)])
    clip = clip_of([(image + written(-60)).clip(0, 255).astype(np.uint8)])
    assert iou(source_mask(clip.alpha[0], clip.crop), disc(50, 50, 28)) > 0.95
    assert clip.confidence[0] == 0.5


def test_what_belongs_to_an_object_is_no_mark() -> None:
    """Parts that move with it, or beside it, and a part of one that stands still far from the border."""
    balls = [disc(40 + 8 * t, 30, 9) for t in range(4)]
    bodies = [disc(40 + 8 * t, 80, 25) for t in range(4)]
    white = np.full((SIZE, SIZE, 3), 250, np.uint8)
    both = [(40, 90, 200), (200, 60, 40)]
    for frames, truth in (
        ([draw(white, [a, b], both) for a, b in zip(bodies, balls, strict=True)], bodies[0] | balls[0]),
        ([draw(white, [bodies[0], balls[0]], both)] * 3, bodies[0] | balls[0]),
    ):
        clip = clip_of(frames)
        assert iou(source_mask(clip.alpha[0], clip.crop), truth) > 0.95
        assert clip.confidence.min() > 0.9


def test_what_is_left_of_an_object_at_the_edge_is_no_object(caplog: pytest.LogCaptureFixture) -> None:
    frames = [draw(np.full((SIZE, SIZE, 3), 250, np.uint8), [disc(x, 60)], [(40, 90, 200)]) for x in (60, 90, 142)]
    clip = clip_of(frames)
    assert (clip.confidence > 0).tolist() == [True, True, False]
    assert clip.alpha[2].max() == 0
    assert "the object is not seen in frames [2]" in caplog.text


def test_an_object_that_was_found_in_coarse_frames_is_cropped_from_finer_ones() -> None:
    truth = [disc(50 + 5 * t, 60) for t in range(3)]
    fine = np.stack([draw(np.full((SIZE, SIZE, 3), 230, np.uint8), [mask], [(40, 160, 60)]) for mask in truth])
    small = np.stack([cv2.resize(frame, (SIZE // 2, SIZE // 2), interpolation=cv2.INTER_AREA) for frame in fine])
    wanted = clip_of(list(fine))
    found = Video(frames=torch.from_numpy(small), fps=12.0, scale=2.0, coarse=True)
    clip = segment(SegmentationConfig(size=128), found, finer=iter(fine))
    assert (clip.crop - wanted.crop).abs().max() <= 3
    for t, mask in enumerate(truth):
        assert iou(source_mask(clip.alpha[t], clip.crop), mask) > 0.93
    inside = clip.alpha[0] == 255
    assert (clip.rgb[0][inside].float() - torch.tensor([40.0, 160, 60])).abs().max() <= 5


def test_masks_of_the_user_come_before_all_else() -> None:
    frames = torch.from_numpy(np.stack(with_alpha([255 * disc(60, 60)] * 2)))
    masks = torch.from_numpy(np.stack([255 * disc(40, 60, 12), np.zeros((SIZE, SIZE))]).astype(np.uint8))
    clip = segment(SegmentationConfig(size=128), Video(frames=frames, fps=12.0), masks=masks)
    assert clip.method == "mask"
    assert iou(source_mask(clip.alpha[0], clip.crop), disc(40, 60, 12)) > 0.95
    assert clip.confidence.tolist() == [1, 0]
