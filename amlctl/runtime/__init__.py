"""The program on a compute node: it starts every run, local or remote (`python -m amlctl.runtime`).

It requires only Python 3.9+ and xxhash. All that it knows of a run is the record in the store, seen as a folder.
"""
