"""How packages are installed that the program can do without: as its extras, which `pyproject.toml` lists."""


def how_to_install(extra: str) -> str:
    """What installs an extra, to stand in a sentence.

    It is installed from the checkout, never by the project's name, which is not on the package index: whoever takes it
    could put anything there.
    """
    return f"pip install '.[{extra}]' in the checkout"
