"""Packages that meshes need and that do not come with the program: looked for before anything is computed.

A plan asks for them, so nothing here imports what computes, nor the packages themselves.
"""

from importlib.util import find_spec

from ss4d.stages.errors import InputError
from ss4d.stages.extras import how_to_install

PACKAGES = {"manifold3d": "manifold3d", "skimage": "scikit-image", "xatlas": "xatlas"}  # by what they are imported as


def check_packages() -> None:
    """Looks whether what meshes need is installed.

    Raises:
        InputError: which packages are not, and how to get them.
    """
    if missing := [name for module, name in PACKAGES.items() if find_spec(module) is None]:
        raise InputError(f"meshes need the packages {' and '.join(missing)}: {how_to_install('mesh')}")
