"""The program on a compute node: it starts every run, local or remote (`python -m amlctl.runtime`).

Python 3.9+ with xxhash is all that it needs. It knows a run by its record in the store, seen as a folder.
"""
