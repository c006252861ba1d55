"""The command line."""

import os

if os.environ.get("PYTHONPATH"):
    from amlctl import leave_out_pythonpath

    leave_out_pythonpath()
