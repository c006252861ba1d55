"""amlctl: one project folder, run on the laptop and on Azure ML."""

import os
import sys

TYPE_CHECKING = False  # importing typing for it would cost every start
if TYPE_CHECKING:
    from amlctl.api import fetch, list_runs, logs, submit, sync

__all__ = ["__version__", "fetch", "list_runs", "logs", "submit", "sync"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The functions of `amlctl.api`, which brings all of amlctl along, on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("amlctl.api"), name)


def leave_out_pythonpath() -> None:
    """Find the packages that amlctl needs where it was installed, whatever PYTHONPATH names: that may hold packages of
    another Python, as with ROS, or modules of the user with the same names. Scripts still get the variable.

    To be called before anything else is imported. Changes nothing where amlctl itself was found through PYTHONPATH.
    """
    named = {os.path.realpath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    own = os.path.realpath(os.path.dirname(os.path.dirname(__file__)))
    if not named or own in named:
        return
    import sysconfig

    named -= {os.path.realpath(path) for path in sysconfig.get_paths().values()}
    sys.path[:] = [path for path in sys.path if not path or os.path.realpath(path) not in named]
