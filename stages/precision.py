"""The number formats that networks can compute in, by name."""

from typing import Literal

# "published": each network as its own `use_fp16` says, an image encoder in float32 (docs/model.md, section 1).
Precision = Literal["published", "float32", "float16", "bfloat16"]
