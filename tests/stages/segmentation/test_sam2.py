"""SAM 2, with a small random network in its place: what it is given, and what is made of what it gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from ss4d.stages.errors import ModelError
from ss4d.stages.segmentation.config import Sam2Config
from ss4d.stages.segmentation.masks import Box
from ss4d.stages.segmentation.saliency_net import MEAN, STD
from ss4d.stages.segmentation.sam2 import followed, load_sam2, sam2_masks
from ss4d.stages.types import silent

SIDE = 64


def small_sam2() -> Sam2VideoModel:
    torch.manual_seed(0)
    backbone = {
        "hidden_size": 8,
        "image_size": [SIDE, SIDE],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "blocks_per_stage": [1, 1, 2, 1],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **backbone},
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 128,
        "model_type": "sam2_vision_model",
    }
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "iou_head_hidden_dim": 128, "num_attention_heads": 2},
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
    )
    return Sam2VideoModel(config).eval()


def write_model(folder: Path, model: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors"
    )
    return folder / "model.safetensors"


@pytest.mark.parametrize(("box", "point"), [((20, 10, 60, 40), None), (None, (30, 20)), ((20, 10, 60, 40), (30, 20))])
def test_sam2_follows_as_the_whole_video_would(tmp_path: Path, box: Box | None, point: tuple[int, int] | None) -> None:
    """Frame by frame, and none kept, it gives what transformers gives when it is handed all frames at once."""
    model = load_sam2(write_model(tmp_path, small_sam2()), "cpu")
    frames = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    ours = list(followed(model, frames, box, point))
    pixels = torch.from_numpy(((frames.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2).copy())
    session = Sam2VideoInferenceSession(video=pixels, video_height=SIDE, video_width=SIDE, dtype=torch.float32)
    corners = [] if box is None else [[box[0], box[1]], [box[2], box[3]]]
    points = [*corners, *([] if point is None else [[*point]])]
    labels = [*([2, 3] if box else []), *([1] if point else [])]
    session.obj_id_to_idx(1)
    session.add_point_inputs(
        0, 0, {"point_coords": torch.tensor([[points]]).float(), "point_labels": torch.tensor([[labels]])}
    )
    session.obj_with_new_inputs = [1]
    with torch.inference_mode():
        theirs = list(model.propagate_in_video_iterator(session, start_frame_idx=0))
    assert len(ours) == len(theirs) == 4
    for (logits, seen), known in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(logits, known.pred_masks[0, 0].numpy(), atol=1e-4)
        assert seen == pytest.approx(float(known.object_score_logits.flatten()[0].sigmoid()), abs=1e-5)


def test_sam2_masks_have_the_size_of_the_frames_and_absent_objects_are_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = np.zeros((16, 16), np.float32)
    wide[:, :8] = 9
    wide[:, 8:] = -9
    answers = [(wide, 0.9), (wide, 0.2)]
    monkeypatch.setattr("ss4d.stages.segmentation.sam2.followed", lambda *_: iter(answers))
    alpha, confidence = sam2_masks(None, torch.zeros(2, 40, 80, 3, dtype=torch.uint8), None, (3, 4), silent)
    assert alpha.shape == (2, 40, 80)
    assert alpha[0, :, :36].min() > 250
    assert alpha[0, :, 44:].max() < 5
    assert alpha[1].max() == 0
    assert confidence.tolist() == pytest.approx([0.9, 0.0])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights = write_model(tmp_path, small_sam2())
    save_file({"other": torch.zeros(1)}, weights)
    with pytest.raises(ModelError, match=r"are not those of SAM 2: Error.* in loading state_dict"):
        load_sam2(weights, "cpu")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match="are not those of SAM 2"):
        load_sam2(weights, "cpu")


def test_sam2_must_be_told_where_the_object_is() -> None:
    with pytest.raises(ValidationError, match="needs point="):
        Sam2Config()
    assert Sam2Config(point=(1, 2)).point == (1, 2)
