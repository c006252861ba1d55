"""Where a script finds its files: the same call is right on the laptop and on a
compute node.

A run of amlctl sets the variables below. Without them, as with a plain
`python pipeline/…/script.py`, the folders are those of the project that this
file lies in.
"""

import os
from pathlib import Path


def pipeline_dir() -> Path:
    """The scripts and their supporting files."""
    return _folder("AMLCTL_PIPELINE_DIR", "pipeline")


def data_blobs_dir() -> Path:
    """All datasets; a dataset is named by its path below this folder."""
    return _folder("AMLCTL_DATA_BLOBS_DIR", "data_blobs")


def raw_dir() -> Path:
    """Data as it came."""
    return data_blobs_dir() / "raw"


def working_dir() -> Path:
    """Processed data, which training reads."""
    return data_blobs_dir() / "working"


def outputs_dir() -> Path:
    """Everything that a run produces: models, graphs, metrics."""
    return _folder("AMLCTL_OUTPUTS_DIR", "outputs")


def _folder(variable: str, name: str) -> Path:
    value = os.environ.get(variable)
    return Path(value) if value else _project_dir() / name


def _project_dir() -> Path:
    for folder in Path(__file__).absolute().parents:
        if (folder / "pipeline").is_dir():
            return folder
    raise FileNotFoundError(f"no folder above {__file__} holds pipeline/")
