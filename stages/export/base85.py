"""Bytes as text in HTML: four bytes are five characters, where base64 makes them five and a third."""

import numpy as np

# All that ASCII prints but for what markup or a script could take for its own.
ALPHABET = "".join(letter for letter in map(chr, range(33, 127)) if letter not in "\"&'<>\\`,;")


def base85(data: bytes) -> str:
    """The text of some bytes; `viewer/spz.js` reads it. A last group of k bytes has k + 1 characters."""
    missing = -len(data) % 4
    words = np.frombuffer(data + bytes(missing), ">u4").astype(np.int64)
    digits = np.stack([words // 85**power % 85 for power in (4, 3, 2, 1, 0)], axis=-1).reshape(-1)
    letters = np.frombuffer(ALPHABET.encode("ascii"), np.uint8)[digits[: len(digits) - missing]]
    return letters.tobytes().decode("ascii")
