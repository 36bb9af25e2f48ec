"""The seed of a run's random numbers: what it is where none is given, and which seeds there are."""

from ss4d.pipelines.errors import ConfigError

DEFAULT_SEED = 42
MAX_SEED = 2**63 - 1  # torch's generators take it, and so does a column of 64-bit integers


def check_seed(seed: int) -> None:
    """Refuses what is no seed.

    Raises:
        ConfigError: naming the option.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"--seed must lie between 0 and 2^63 - 1; got {seed}")
