"""Runs of several real processes on this machine: how they find each other, and that they end together."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.events import LogText
from amlctl.core.run import RunRecord
from amlctl.errors import NotFound, UsageError
from amlctl.operations.fetch import fetch
from amlctl.operations.logs import follow
from amlctl.operations.submit.submit import plan
from amlctl.workspaces.local.rank_processes import gpu_variables
from tests.support.bench import Bench
from tests.support.logs import read_log_text
from tests.support.runs import run_record, wait_until

MEET = """
    import os, socket, time
    rank, size = os.environ["RANK"], int(os.environ["WORLD_SIZE"])
    address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))

    def connected():
        deadline = time.monotonic() + 30
        while True:
            try:
                return socket.create_connection(address)
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    if rank == "0":
        with socket.create_server(address) as server:
            others = [server.accept()[0] for _ in range(size - 1)]
        met = sorted(other.recv(100).decode() for other in others)
        for other in others:
            other.sendall(rank.encode())
    else:
        with connected() as first:
            first.sendall(rank.encode())
            met = [first.recv(100).decode()]
    print("rank", rank, "of", size, "met", *met)
"""
SEEN = """
    import json, os, pathlib, sys
    number = os.environ.get("RANK") or os.environ.get("OMPI_COMM_WORLD_RANK")
    if number is None:
        number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    outputs = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
    data = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"])
    config = json.loads(pathlib.Path(sys.argv[2]).read_text()) if sys.argv[1:2] == ["--config"] else None
    seen = {
        "variables": dict(os.environ),
        "data": sorted(path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()),
        "config": config,
        "cwd": os.getcwd(),
    }
    (outputs / f"seen-{number}.json").write_text(json.dumps(seen))
"""


def seen(folder: Path) -> dict[int, dict[str, Any]]:
    return {int(path.stem.partition("-")[2]): json.loads(path.read_text()) for path in folder.rglob("seen-*.json")}


def variables_like(document: dict[str, Any], *beginnings: str) -> dict[str, str]:
    return {name: value for name, value in document["variables"].items() if name.startswith(beginnings)}


@pytest.mark.parametrize(("processes", "instances"), [(2, 1), (1, 2), (2, 2)])
def test_processes_meet_at_the_master(bench: Bench, processes: int, instances: int) -> None:
    bench.script(MEET)
    size = processes * instances
    record = bench.submit("train.py", distribution="pytorch", processes=processes, instances=instances).record
    assert (record.status, record.exit_code, record.error) == ("Completed", 0, None)
    names = bench.workspace.log_names(record.run)
    assert names == [f"std_log_process_{rank}.txt" for rank in range(size)]
    texts = [read_log_text(bench.workspace, record.run, name=name) for name in names]
    others = " ".join(str(rank) for rank in range(1, size))
    assert texts == [f"rank 0 of {size} met {others}\n"] + [f"rank {r} of {size} met 0\n" for r in range(1, size)]
    assert "".join(event.text for event in bench.reported(LogText)) == texts[0]
    for name, text in zip(names, texts, strict=True):
        assert bench.store.get(f"runs/{record.run}/logs/{name}").decode() == text


def test_torch_reduces_over_two_processes(bench: Bench) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed beside amlctl")
    bench.script(
        """
        import torch
        import torch.distributed as dist
        dist.init_process_group("gloo")
        tensor = torch.tensor([float(dist.get_rank() + 1)])
        dist.all_reduce(tensor)
        print("rank", dist.get_rank(), "sum", tensor.item())
        dist.destroy_process_group()
        """
    )
    record = bench.submit("train.py", distribution="pytorch", processes=2).record
    assert record.status == "Completed", read_log_text(bench.workspace, record.run)
    for rank in range(2):
        text = read_log_text(bench.workspace, record.run, name=f"std_log_process_{rank}.txt")
        assert f"rank {rank} sum 3.0" in text


def test_pytorch_variables(bench: Bench) -> None:
    bench.script(SEEN)
    record = bench.submit("train.py", distribution="pytorch", processes=2, instances=2).record
    found = seen(bench.project.outputs_dir / record.run)
    assert sorted(found) == [0, 1, 2, 3]
    ports = {document["variables"]["MASTER_PORT"] for document in found.values()}
    assert len(ports) == 1
    for rank, document in found.items():
        assert variables_like(document, "RANK", "LOCAL_", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR") == {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % 2),
            "NODE_RANK": str(rank // 2),
            "WORLD_SIZE": "4",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
        }


def test_mpi_variables(bench: Bench) -> None:
    bench.script(SEEN)
    record = bench.submit("train.py", distribution="mpi", processes=2, instances=2).record
    found = seen(bench.project.outputs_dir / record.run)
    assert sorted(found) == [0, 1, 2, 3]
    assert len({document["variables"]["AZ_BATCH_MASTER_NODE"] for document in found.values()}) == 1
    for rank, document in found.items():
        assert variables_like(document, "OMPI_", "RANK", "MASTER_ADDR", "TF_CONFIG") == {
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_SIZE": "4",
            "OMPI_COMM_WORLD_LOCAL_RANK": str(rank % 2),
            "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        }


def test_tensorflow_variables(bench: Bench) -> None:
    bench.script(SEEN)
    record = bench.submit("train.py", distribution="tensorflow", instances=2).record
    configs = {
        rank: json.loads(document["variables"]["TF_CONFIG"])
        for rank, document in seen(bench.project.outputs_dir / record.run).items()
    }
    assert [configs[rank]["task"] for rank in (0, 1)] == [{"type": "worker", "index": rank} for rank in (0, 1)]
    assert configs[0]["cluster"] == configs[1]["cluster"]
    workers = configs[0]["cluster"]["worker"]
    assert len(set(workers)) == 2
    assert all(worker.startswith("127.0.0.1:") for worker in workers)


def test_one_process_has_no_variables_of_a_launcher(bench: Bench) -> None:
    bench.script(SEEN.replace('["TF_CONFIG"]', '.get("TF_CONFIG", \'{"task": {"index": 0}}\')'))
    record = bench.submit("train.py").record
    (document,) = seen(bench.project.outputs_dir / record.run).values()
    assert variables_like(document, "RANK", "LOCAL_", "WORLD", "MASTER_", "NODE_RANK", "OMPI_", "TF_CONFIG") == {}
    assert bench.workspace.log_names(record.run) == ["std_log.txt"]


def test_every_process_finds_data_and_config_of_its_node(bench: Bench) -> None:
    for number in range(30):
        bench.write(f"data_blobs/raw/{number}.txt", str(number))
    bench.write("pipeline/base.json", '{"rate": 1}')
    bench.script(SEEN)
    result = bench.submit("train.py", processes=3, instances=2, datasets=("raw",), config="base.json")
    folder = bench.project.outputs_dir / result.record.run
    found = seen(folder)
    assert len(found) == 6
    assert all(len(document["data"]) == 30 and document["config"] == {"rate": 1} for document in found.values())
    assert [len({found[rank]["cwd"] for rank in ranks}) for ranks in ((0, 1, 2), (3, 4, 5), range(6))] == [1, 1, 2]
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("seen-*")) == [
        *("rank-1/seen-3.json", "rank-1/seen-4.json", "rank-1/seen-5.json"),
        *("seen-0.json", "seen-1.json", "seen-2.json"),
    ]
    again = fetch(bench, result.record.run, to=folder / "some", include=["rank-1/*"])
    assert (again.files, again.downloaded_files) == (3, 3)


def test_what_later_processes_leave_is_kept_too(bench: Bench) -> None:
    bench.script(
        """
        import os, pathlib, time
        outputs = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
        made = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"]) / "working/made"
        made.mkdir(parents=True, exist_ok=True)
        rank = os.environ["RANK"]
        if rank == "0":
            (outputs / "pid.new").write_text(str(os.getpid()))
            (outputs / "pid.new").rename(outputs / "pid")
        else:
            while not (outputs / "pid").exists():
                time.sleep(0.02)
            try:
                while True:  # until the script of rank 0 has ended
                    os.kill(int((outputs / "pid").read_text()), 0)
                    time.sleep(0.02)
            except ProcessLookupError:
                time.sleep(0.3)
            (outputs / "late.txt").write_text("late")
        (made / f"{rank}.txt").write_text(rank)
        """
    )
    record = bench.submit("train.py", processes=2, produces=("working/made",)).record
    assert record.status == "Completed"
    assert (bench.project.outputs_dir / record.run / "late.txt").read_text() == "late"
    bench.script(SEEN)
    reader = bench.submit("train.py", datasets=("working/made",), distribution="pytorch").record
    (document,) = seen(bench.project.outputs_dir / reader.run).values()
    assert document["data"] == ["working/made/0.txt", "working/made/1.txt"]


def test_the_log_of_another_rank_can_be_followed(bench: Bench) -> None:
    go = bench.project.root / "go"
    bench.script(
        """
        import os, time
        print("line of", os.environ["RANK"])
        if os.environ["RANK"] == "0":
            print("much more of rank 0" * 100)
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.02)
        print("end of", os.environ["RANK"])
        """
    )
    run = bench.submit("train.py", is_detached=True, processes=2, variables={"GO": str(go)}).record.run
    name = "std_log_process_1.txt"
    wait_until(lambda: "line of 1" in read_log_text(bench.workspace, run, name=name), "the first line")
    reported: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, LogText):
            reported.append(event.text)
            go.touch()

    assert follow(replace(bench, sink=note), run, name=name).status == "Completed"
    assert "".join(reported) == "line of 1\nend of 1\n"
    with pytest.raises(NotFound, match="std_log_process_2"):
        read_log_text(bench.workspace, run, name="std_log_process_2.txt")
    done = fetch(bench, run, with_logs=True)
    assert (bench.project.root / done.to / "logs" / name).read_text() == "line of 1\nend of 1\n"


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ({"distribution": "horovod"}, "--distribution 'horovod' is unknown"),
        ({"processes": 0}, "--processes 0"),
        ({"instances": -1}, "--instances -1"),
    ],
)
def test_wrong_use_stops_before_there_is_a_run(bench: Bench, options: dict[str, Any], reported: str) -> None:
    bench.script("pass")
    with pytest.raises(UsageError, match=reported):
        bench.submit("train.py", **options)
    assert bench.workspace.list_runs() == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (None, 1, 1)),
        ({"processes": 1}, (None, 1, 1)),
        ({"processes": 2}, ("pytorch", 2, 1)),
        ({"instances": 3}, ("pytorch", 1, 3)),
        ({"distribution": "mpi"}, ("mpi", 1, 1)),
        ({"distribution": "tensorflow", "processes": 2, "instances": 2}, ("tensorflow", 2, 2)),
    ],
)
def test_the_plan_says_which_processes(
    bench: Bench, options: dict[str, Any], expected: tuple[str | None, int, int]
) -> None:
    bench.script("pass")
    request = bench.request("train.py", **options)
    document = plan(bench, request).to_json()
    assert (document["distribution"], document["processes"], document["instances"]) == expected


def test_a_repeated_run_has_the_same_processes(bench: Bench) -> None:
    bench.script("print('here')")
    first = bench.submit("train.py", distribution="mpi", processes=2).record
    again = bench.submit(from_run=first.run).record
    assert (again.spec.distribution, again.spec.processes, again.spec.instances, again.status) == (
        "mpi",
        2,
        1,
        "Completed",
    )
    other = bench.submit(from_run=first.run, distribution="pytorch", processes=1).record
    assert (other.spec.distribution, other.spec.processes) == ("pytorch", 1)


def _of_before() -> dict[str, Any]:
    """A record that was written before runs had several processes."""
    document = run_record(run="old-20260101-000000-abcd", script="pipeline/a.py").to_json()
    return {name: value for name, value in document.items() if name not in ("distribution", "processes", "instances")}


def test_older_records_have_one_process() -> None:
    record = RunRecord.from_json(_of_before())
    assert (record.spec.distribution, record.spec.processes, record.spec.instances) == (None, 1, 1)
    assert record.spec.process_group.text == ""


@pytest.mark.parametrize(
    ("gpus", "slot", "slots", "node", "processes", "visible"),
    [
        ("", 0, 1, 0, 2, None),
        ("01", 0, 2, 0, 1, "0"),
        ("01", 1, 2, 0, 1, "1"),
        ("0", 1, 2, 0, 1, "0"),
        ("0123", 0, 1, 0, 1, "0"),
        ("0123", 0, 1, 0, 2, "0,1"),
        ("0123", 0, 1, 1, 2, "2,3"),
        ("0123", 1, 2, 0, 2, "1,3"),
        ("01", 1, 2, 0, 2, "1"),
        ("012", 0, 1, 1, 2, "2,0"),
    ],
)
def test_a_gpu_for_every_process_where_there_are_enough(
    gpus: str, slot: int, slots: int, node: int, processes: int, visible: str | None
) -> None:
    found = gpu_variables(list(gpus), slot, slots, node=node, processes=processes)
    assert found == ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
