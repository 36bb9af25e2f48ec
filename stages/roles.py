"""Roles: what a network of a model is for, as `pipeline.json` names it (docs/model.md, section 1)."""

IMAGE_ENCODER = "image_cond_model"
STRUCTURE_FLOW = "sparse_structure_flow_model"
STRUCTURE_DECODER = "sparse_structure_decoder"
LATENT_FLOW = "slat_flow_model"
GAUSSIAN_DECODER = "slat_decoder_gs"

# Encoders, which only training and measuring need: a published folder has none.
STRUCTURE_ENCODER = "sparse_structure_encoder"
LATENT_ENCODER = "slat_encoder"
