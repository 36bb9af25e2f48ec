"""What a fit says of the frames that it made better, and of those that it left alone."""

from torch import Tensor


def said(better: Tensor) -> str:
    """A sentence for the log about frames (t), true where the fit is kept."""
    if better.all():
        return f"all {len(better)} frames look more like the input, and are kept"
    if not better.any():
        return "the frames came out no better: wrong camera or masks? All are left as they were"
    left = [str(t + 1) for t in range(len(better)) if not better[t]]
    return f"{int(better.sum())} of {len(better)} frames came out better; left as they were: {', '.join(left)}"
