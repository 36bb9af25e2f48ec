"""What a configuration may say of each kernel; `ss4d.stages.ops.kernel_choice` has what these words name."""

from typing import Literal

Part = Literal["attention", "convolution", "rasterizer", "triangles"]
AUTO = "auto"  # the first in the table of the device that is there and works
AttentionKernel = Literal["auto", "torch", "varlen", "xformers", "flash3"]
ConvolutionKernel = Literal["auto", "torch", "spconv"]
RasterizerKernel = Literal["auto", "numba", "torch", "gsplat"]
TriangleKernel = Literal["auto", "numba", "nvdiffrast"]
