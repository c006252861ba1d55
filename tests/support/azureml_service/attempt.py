"""One attempt of a job on fresh nodes: folders, processes, and what is carried to storage meanwhile."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.shared_runtime import unpack_shared

from . import processes
from .faults import Faults
from .folders import OutputFolder, bring_input, output_place
from .job import Job
from .log_pump import LogPump
from .place import Place, asset_of
from .ranks import Rank, ranks_of
from .storage import ARTIFACTS, Storage

_LOGS_EVERY_S = 0.15
_OUTPUTS_EVERY_S = 0.5
_REFERENCE = re.compile(r"\$\{\{\s*(inputs|outputs)\.([\w.-]+)\s*\}\}")
_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)


class Attempt:
    """Made on one thread, which also polls and ends it; two more carry logs and outputs to storage."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        place: Place,
        storage: Storage,
        faults: Faults,
        code_uri: Callable[[str, str], str | None],
        data_uri: Callable[[str, str], str | None],
        interpreter: Path,
    ) -> None:
        """Brings inputs and code down. Raises MissingDataError."""
        self._job = job
        self._folder = folder
        self._place = place
        self._storage = storage
        self._faults = faults
        self._data_uri = data_uri
        self._outputs: list[OutputFolder] = []
        self._uploads: list[OutputFolder] = []
        self._pumps: list[LogPump] = []
        self._running: list[processes.Running] = []
        self._ranks = ranks_of(job.asked.get("distribution"), job.instance_count, faults.log_digits)
        self._values: list[dict[str, str]] = []
        self._stopping = threading.Event()
        self._carrier_error: Exception | None = None
        self._carriers = [
            threading.Thread(target=self._carry, args=args, name=f"carrier-{job.name}", daemon=True)
            for args in ((_LOGS_EVERY_S, self._push_logs), (_OUTPUTS_EVERY_S, self._sync_outputs))
        ]
        for index in range(job.instance_count):
            self._make_node(folder / f"node-{index}", code_uri, interpreter)

    def start(self) -> None:
        job = self._job
        for rank in self._ranks:
            node = self._folder / f"node-{rank.node}"
            values = self._values[rank.node]
            log = node / "user_logs" / rank.log
            command = _filled(str(job.asked["command"]), values)
            self._running.append(processes.start(command, node / "wd", self._variables(rank, node, values), log))
            way = self._faults.log_after_preemption if job.attempt > 1 else ""
            apart = f"retry_{job.attempt - 1:03}/" if way == "apart" else ""
            blob = f"{job.artifacts}user_logs/{apart}{rank.log}"
            continues = way == "continued"
            self._pumps.append(LogPump(log, self._storage, blob, continues=continues))
        text = f"attempt {job.attempt} with {len(self._ranks)} processes\n"
        self._storage.send_text(text, ARTIFACTS, f"{job.artifacts}system_logs/lifecycler/lifecycler.log")
        for carrier in self._carriers:
            carrier.start()

    def exit_code(self) -> int | None:
        """None while it runs; the first code that is not 0, when one has failed."""
        codes = [one.process.poll() for one in self._running]
        failed = [code for code in codes if code]
        return failed[0] if failed else None if None in codes else 0

    def finish(self, grace_s: float, *, has_succeeded: bool) -> None:
        """End what still runs, and give back outputs and logs, except for last lines that are held."""
        processes.end_all(self._running, grace_s)
        for one in self._running:
            one.release()
        self._stopping.set()
        for carrier in self._carriers:
            carrier.join()
        if self._carrier_error is not None:
            raise self._carrier_error
        for output in self._outputs + (self._uploads if has_succeeded else []):
            output.sync()
        self._push_logs()

    def kill(self) -> None:
        self._stopping.set()
        for one in self._running:
            one.release()

    def push_last_lines(self) -> None:
        for pump in self._pumps:
            pump.push()

    def last_output(self) -> str:
        """The end of the log of the first process that failed."""
        for one in self._running:
            if one.process.returncode:
                return one.log.read_bytes()[-2000:].decode(errors="replace")
        return ""

    def _make_node(self, node: Path, code_uri: Callable[[str, str], str | None], interpreter: Path) -> None:
        job, storage = self._job, self._storage
        working, programs = node / "wd", node / "bin"
        for one in (working, programs, node / "home", node / "tmp"):
            one.mkdir(parents=True)
        for name in ("python", "python3"):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{interpreter}" "$@"\n')
            program.chmod(0o755)
        if code := asset_of(job.asked.get("codeId") or "", "codes"):
            storage.bring_folder(*storage.address(code_uri(*code) or ""), working)
            for archive in working.glob("amlctl-runtime.zip"):
                unpack_shared(archive)
        values = {}
        for name, asked in (job.asked.get("inputs") or {}).items():
            folder = node / "inputs" / name
            if data := asset_of(str(asked.get("uri") or ""), "data"):
                asked = {**asked, "uri": self._data_uri(*data) or ""}
            values[f"inputs.{name}"] = bring_input(storage, asked, folder)
            if asked.get("mode") == "ReadWriteMount":
                container, path = storage.address(str(asked["uri"]))
                prefix = path if path.endswith("/") else path + "/"
                self._outputs.append(OutputFolder(storage, folder, container, prefix, is_mount=True))
        for name, asked in job.named_outputs().items():
            mode = asked.get("mode") or "ReadWriteMount"
            if mode == "Direct":
                values[f"outputs.{name}"] = str(asked.get("uri"))
                continue
            container, prefix = output_place(storage, job.name, name, dict(asked))
            output = OutputFolder(storage, node / "outputs" / name, container, prefix, is_mount="Mount" in mode)
            (self._outputs if "Mount" in mode else self._uploads).append(output)
            is_file = asked.get("jobOutputType") == "uri_file"
            values[f"outputs.{name}"] = str(output.folder / name if is_file else output.folder)
        for name in ("outputs", "logs"):
            prefix = f"{job.artifacts}{name}/"
            self._outputs.append(OutputFolder(storage, working / name, ARTIFACTS, prefix, is_mount=False))
        values["outputs.default"] = str(working / "outputs")
        self._values.append(values)

    def _variables(self, rank: Rank, node: Path, values: Mapping[str, str]) -> dict[str, str]:
        job, place = self._job, self._place
        asked = job.asked.get("environmentVariables") or {}
        return {
            "PATH": f"{node / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(node / "home"),
            "TMPDIR": str(node / "tmp"),
            "LANG": "C.UTF-8",
            "AZUREML_RUN_ID": job.name,
            "AZUREML_ROOT_RUN_ID": job.name,
            "AZUREML_EXPERIMENT_NAME": job.experiment,
            "AZUREML_ARM_SUBSCRIPTION": place.subscription_id,
            "AZUREML_ARM_RESOURCEGROUP": place.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": place.workspace_name,
            "AZUREML_NODE_COUNT": str(job.instance_count),
            **(self._tracking() if self._faults.has_tracking else {}),
            **{f"AZURE_ML_{key[: key.index('s.')].upper()}_{key[key.index('.') + 1 :]}": values[key] for key in values},
            **{name: _filled(str(value), values) for name, value in asked.items()},
            **rank.variables,
        }

    def _tracking(self) -> dict[str, str]:
        host = self._place.endpoint.removeprefix("https://")
        return {
            "MLFLOW_TRACKING_URI": f"azureml://{host}/mlflow/v1.0{self._place.id}?",
            "MLFLOW_TRACKING_TOKEN": "a.token.of-the-node",
            "MLFLOW_RUN_ID": self._job.name,
            "SSL_CERT_FILE": str(self._place.authority),
        }

    def _carry(self, every_s: float, act: Callable[[], None]) -> None:
        try:
            while not self._stopping.wait(every_s):
                act()
        except Exception as error:  # noqa: BLE001 - the thread that ends the attempt raises it
            self._carrier_error = error

    def _sync_outputs(self) -> None:
        for output in self._outputs:
            output.sync()

    def _push_logs(self) -> None:
        for pump in self._pumps:
            pump.push(holds_last_lines=self._faults.last_lines_after_s > 0)


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Optional parts without a value fall away; other references without a value stay as they are."""

    def optional(found: re.Match[str]) -> str:
        known = all(f"{one[1]}.{one[2]}" in values for one in _REFERENCE.finditer(found[1]))
        return found[1] if known else ""

    text = _OPTIONAL.sub(optional, text)
    return _REFERENCE.sub(lambda found: values.get(f"{found[1]}.{found[2]}", found[0]), text)
