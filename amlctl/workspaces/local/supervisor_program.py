"""`python -m amlctl.workspaces.local.supervisor_program RUN SETTINGS`: see `supervisor`.

It forks at once, and the caller waits for the first process only. So the supervisor leads a session of its own, which a
closed terminal does not reach, and the caller is not its parent, so that no zombie is left to reap.
"""

from __future__ import annotations

import gc
import os
import sys

from amlctl import leave_out_pythonpath

if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()
    gc.disable()  # what is imported is not garbage: looking for it, here and at the end, took a fifth of the time
    leave_out_pythonpath()
    from amlctl.workspaces.local.supervisor import main

    gc.enable()
    main(sys.argv[1:])
    gc.freeze()
