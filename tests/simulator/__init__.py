"""The real commands over a store that is a step machine: every interleaving, every kill, every lost answer.

`python -m tests.simulator --help` says how to run it; `docs/safety.md` says what it proves.
"""
