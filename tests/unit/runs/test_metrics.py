"""Metrics from outputs as the runtime saves them: which files count, and what a store may have lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from amlctl.core.store_keys import outputs_index_key, outputs_prefix, outputs_tree
from amlctl.errors import IntegrityError
from amlctl.runs import metrics
from amlctl.runs.metrics import read_metrics
from amlctl.runs.tree_saver import TreeSaver
from amlctl.stores.directory import DirectoryStore

RUN = "r"
META = "lifecycle_stage: {}\nstart_time: {}\n"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def save(store: DirectoryStore, folder: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    TreeSaver(store, folder, outputs_tree(RUN)).save(is_last=True)


def test_only_the_files_of_metrics_count(store: DirectoryStore, tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": '{"loss": 3}\n{"loss": 2}\n',
        "deep/metrics.json": '{"no": 1}',
        "mlruns/0/aaa/meta.yaml": META.format("active", 10),
        "mlruns/0/aaa/metrics/val/f1": "5 0.5 0\n",
        "mlruns/0/aaa/metrics/loss": "5 99 0\n",
        "mlruns/0/aaa/metrics/broken": "\x00",
        "mlruns/0/aaa/artifacts/metrics/no": "5 1 0\n",
        "mlruns/0/bbb/meta.yaml": META.format("deleted", 20),
        "mlruns/0/bbb/metrics/no": "5 1 0\n",
        "mlruns/0/models/m-1/metrics/no": "5 1 0\n",
    }
    save(store, tmp_path / "outputs", files)
    found = read_metrics(store, RUN)
    assert found.last == {"loss": 2, "val/f1": 0.5}
    assert found.series == {"loss": [(0, 3), (1, 2)], "val/f1": [(0, 0.5)]}
    assert found.warnings == ["mlruns/0/aaa/metrics/broken is not used: it has no lines of MLflow"]


def test_a_run_without_outputs_has_no_metrics(store: DirectoryStore) -> None:
    assert read_metrics(store, RUN).last == {}


def test_a_file_that_is_gone_is_not_an_error_but_a_damaged_list_is(store: DirectoryStore, tmp_path: Path) -> None:
    save(store, tmp_path / "outputs", {"metrics.json": '{"a": 1}'})
    store.delete(f"{outputs_prefix(RUN)}metrics.json")
    assert read_metrics(store, RUN).last == {}
    store.put(outputs_index_key(RUN), b"damaged", replace=True)
    with pytest.raises(IntegrityError):
        read_metrics(store, RUN)


def test_of_very_many_outputs_only_the_two_files_are_read(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "metrics.json": '{"a": 1}',
        "mlruns/0/x/meta.yaml": META.format("active", 1),
        "mlruns/0/x/metrics/b": "1 1 1\n",
    }
    save(store, tmp_path / "outputs", files)
    assert read_metrics(store, RUN).last == {"a": 1, "b": 1}
    monkeypatch.setattr(metrics, "MOST_INDEX_BYTES", 10)
    found = read_metrics(store, RUN)
    assert found.last == {"a": 1}
    assert found.warnings == ["the run has very many outputs: only metrics.json and metrics.jsonl are read"]
