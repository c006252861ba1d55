"""amlctl finds the packages that it needs where it was installed, whatever PYTHONPATH names: that may hold packages of
another Python, as with ROS, or modules of the user with the same names. Scripts still get the variable."""

from __future__ import annotations

import os
import sys

import amlctl


def leave_out_pythonpath() -> None:
    """To be called before anything else is imported. Leaves everything as it is where amlctl itself was found so."""
    named = {os.path.realpath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    own = os.path.realpath(os.path.dirname(os.path.dirname(amlctl.__file__)))
    if not named or own in named:
        return
    import sysconfig

    named -= {os.path.realpath(path) for path in sysconfig.get_paths().values()}
    sys.path[:] = [path for path in sys.path if not path or os.path.realpath(path) not in named]
