"""The plain way of a guided step, which the fast one is compared with.

All neighbors are gathered, absent ones as zeros; doubled rows are copied before they are multiplied; the unconditional
pass attends to tokens of zeros; tables are made anew for each pass; everything is float32.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.conv import kernel_extents
from ss4d.stages.ops.coords import PerAxis, Sites
from ss4d.stages.ops.neighbors import neighbors
from ss4d.stages.ops.pooling import NOT_MERGED, pooling

ROWS = 256  # gathered at once


def gathered_convolution(
    feats: Tensor, sites: Sites, weight: Tensor, bias: Tensor, stride: PerAxis = NOT_MERGED
) -> Tensor:
    """The convolution of `ss4d.stages.ops.conv` as one product of all neighbors, present or not."""
    if stride != NOT_MERGED:
        feats = feats.index_select(0, pooling(sites, stride).parent)
    table = neighbors(sites, kernel_extents(weight))
    padded = torch.cat([feats, feats.new_zeros(1, feats.shape[1])])
    matrix = weight.flatten(1).t()
    products = [torch.addmm(bias, padded[rows.long()].flatten(1), matrix) for rows in torch.split(table, ROWS)]
    return torch.cat(products) if products else feats.new_zeros(0, len(weight))


NAIVE_OPS = replace(TORCH_OPS, conv=gathered_convolution)
