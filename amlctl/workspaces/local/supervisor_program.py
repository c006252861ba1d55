"""`python -m amlctl.workspaces.local.supervisor_program RUN SETTINGS`: see `supervisor`."""

from __future__ import annotations

import sys

from amlctl import leave_out_pythonpath

if __name__ == "__main__":
    leave_out_pythonpath()
    from amlctl.workspaces.local.supervisor import main

    main(sys.argv[1:])
