"""`python detach.py PROGRAM ARGUMENT…`: starts a program that outlives its caller, in a session of its own.

The caller waits for this short process only and becomes nobody's parent: no zombie is left to reap, and a closed
terminal reaches the program no more. Run as a file, so that nothing else is imported.
"""

import os
import sys

if __name__ == "__main__" and os.fork() == 0:
    os.setsid()
    os.execv(sys.argv[1], sys.argv[1:])
