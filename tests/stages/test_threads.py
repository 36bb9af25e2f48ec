"""Calls side by side keep to one thread each, and leave torch's threads elsewhere as they are."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from ss4d.stages.threads import side_by_side


@pytest.mark.parametrize(("allowed", "most", "count"), [(3, 16, 3), (3, 2, 2), (1, 16, 1)])
def test_each_thread_computes_alone(allowed: int, most: int, count: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(allowed)
    try:
        with side_by_side(most) as pool, ThreadPoolExecutor(1) as others:
            together = Barrier(count)
            threads = list(pool.map(lambda _: (together.wait(), torch.get_num_threads())[1], range(count)))
            assert threads == [1] * count
            assert torch.get_num_threads() == allowed
            assert others.submit(torch.get_num_threads).result() == allowed
    finally:
        torch.set_num_threads(before)
