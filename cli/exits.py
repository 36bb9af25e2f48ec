"""Exit codes of the command."""

FAILED, DEFECT, INTERRUPTED, TERMINATED = 1, 70, 130, 143
