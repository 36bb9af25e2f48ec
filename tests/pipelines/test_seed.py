"""Which seeds there are: the same for one clip and for many."""

import pytest

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.seed import MAX_SEED, check_seed


def test_seeds_are_what_a_generator_takes() -> None:
    check_seed(0)
    check_seed(MAX_SEED)
    for seed in (-1, MAX_SEED + 1):
        with pytest.raises(ConfigError, match=f"--seed must lie between 0 and 2\\^63 - 1; got {seed}"):
            check_seed(seed)
