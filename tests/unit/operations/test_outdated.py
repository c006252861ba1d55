"""What `init` says of a project of the first amlctl."""

from __future__ import annotations

from pathlib import Path

from amlctl.operations.init import init

OLD_ENVIRONMENT = """\
dependencies:
  - python=3.6.2
  - pip:
      - azureml-sdk==1.0.85
      - azureml-mlflow
      - numpy # azureml-core is not used
"""


def test_init_names_what_no_longer_works(tmp_path: Path) -> None:
    (tmp_path / "pptdaml.yaml").write_text(OLD_ENVIRONMENT)
    (tmp_path / "pipeline" / "deep").mkdir(parents=True)
    (tmp_path / "pipeline" / "deep" / "train.py").write_text("import os\nfrom azureml.core import Run\n")
    found = init(tmp_path).outdated
    assert [(one.file, one.line, one.found) for one in found] == [
        ("pptdaml.yaml", 2, "python=3.6.2"),
        ("pptdaml.yaml", 4, "azureml-sdk"),
        ("pipeline/deep/train.py", 2, "from azureml.core"),
    ]
    assert init(tmp_path).to_json()["outdated"][0]["instead"] == "python>=3.11"


def test_a_project_of_today_has_nothing_outdated(tmp_path: Path) -> None:
    for text in ("python>=3.11", "python=3.10", "python>=3.9", "python=3.12.1"):
        (tmp_path / "pptdaml.yaml").write_text(f"dependencies:\n  - {text}\n")
        assert init(tmp_path).outdated == []
    assert "outdated" not in init(tmp_path).to_json()
