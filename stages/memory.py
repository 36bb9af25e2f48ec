"""How much memory a run may take to save time, by name."""

from typing import Literal

# "low": nothing is kept from one sampler step to the next that can be computed again.
Memory = Literal["default", "low"]
