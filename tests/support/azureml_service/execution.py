"""The course of a job: image, queue, attempts on nodes, end. One thread a job."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from .attempt import Attempt
from .codes import Codes
from .computes import Computes
from .data import Data
from .environments import Environments
from .faults import Faults
from .folders import delete_folder
from .job import Job
from .place import Place, last_name, now
from .storage import ARTIFACTS, MissingDataError, Storage

_POLL_S = 0.01
_FAILURE_GRACE_S = 5.0


class _CanceledError(Exception):
    """Somebody asked for it, or the service ends; or the time is over, with a message."""


class _FailedError(Exception):
    """It ends here, with this message for the user."""


class Executions:
    """`interpreter` is what jobs find as `python`; it can be set to another one."""

    def __init__(
        self,
        folder: Path,
        place: Place,
        storage: Storage,
        faults: Faults,
        computes: Computes,
        environments: Environments,
        codes: Codes,
        data: Data,
        interpreter: Path,
    ) -> None:
        self.interpreter = interpreter
        self._folder = folder
        self._place = place
        self._storage = storage
        self._faults = faults
        self._computes = computes
        self._environments = environments
        self._codes = codes
        self._data = data
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, job: Job) -> None:
        thread = threading.Thread(target=self._run, args=(job,), name=f"job-{job.name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Kill what runs."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _run(self, job: Job) -> None:
        try:
            self._enter(job, "Starting")
            self._prepare_image(job)
            while not self._try_once(job):
                job.preempt.clear()
        except _CanceledError as reason:
            job.end("Canceled", _error("UserError", str(reason)) if str(reason) else None)
        except MissingDataError as error:
            job.end("Failed", _error("UserError", f"DataAccessError(NotFound) {error}"))
        except _FailedError as error:
            job.end("Failed", _error("UserError", str(error)))
        except Exception:  # noqa: BLE001 - a mistake of the service itself has to be seen on both ends
            text = traceback.format_exc()
            sys.stderr.write(text)
            job.end("Failed", _error("SystemError", text))
        finally:
            job.is_over.set()

    def _enter(self, job: Job, status: str) -> None:
        if not job.enter(status):
            raise _CanceledError
        self._pause(job, self._faults.state_s)

    def _pause(self, job: Job, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if job.cancel.wait(min(left, 0.1)) or self._closing.is_set():
                raise _CanceledError

    def _prepare_image(self, job: Job) -> None:
        environment = str(job.asked["environmentId"]).lower()
        self._enter(job, "Preparing")
        if environment in self._environments.built:
            return
        log = f"{job.artifacts}azureml-logs/20_image_build_log.txt"
        self._storage.send_text(f"Building the image of {last_name(environment)}\n", ARTIFACTS, log)
        self._pause(job, self._faults.image_build_s)
        if self._faults.image_build_fails:
            text = "Building the image\nCondaEnvException: Pip failed\nERROR: failed to solve: exit code: 1\n"
            self._storage.send_text(text, ARTIFACTS, log)
            raise _FailedError("Image build failed. For more details, check azureml-logs/20_image_build_log.txt.")
        self._storage.send_text("Building the image\nImage was built\n", ARTIFACTS, log)
        self._environments.built.add(environment)

    def _try_once(self, job: Job) -> bool:
        """False when the nodes were taken away: it has to be tried again."""
        compute = last_name(job.asked.get("computeId") or "")
        try:
            self._wait_for_nodes(job, compute)
            return self._attempt(job)
        finally:
            if compute:
                self._computes.give_back(compute, job.name)

    def _wait_for_nodes(self, job: Job, compute: str) -> None:
        self._enter(job, "Queued")
        status = {"AllocationState": "steady", "PreparingNodeCount": 0, "RunningNodeCount": 0, "CurrentNodeCount": 0}
        with job.lock:
            job.tags["_aml_system_ComputeTargetStatus"] = json.dumps(status)
        while self._faults.holds_queue or (compute and not self._computes.take(compute, job.name, job.instance_count)):
            self._pause(job, _POLL_S)
        self._pause(job, self._faults.node_start_s)

    def _attempt(self, job: Job) -> bool:
        job.attempt += 1
        folder = self._folder / job.name / str(job.attempt)
        attempt: Attempt | None = None
        try:
            attempt = Attempt(
                job, folder, self._place, self._storage, self._faults, self._codes.uri, self._data.uri, self.interpreter
            )
            if not job.enter("Running"):
                raise _CanceledError
            job.started = job.started or now()
            job.command_began_at_s = job.command_began_at_s or time.monotonic()
            attempt.start()
            return self._watch(job, attempt)
        finally:
            if attempt is not None:
                attempt.kill()
            delete_folder(folder)

    def _watch(self, job: Job, attempt: Attempt) -> bool:
        limit_s = _seconds(str((job.asked.get("limits") or {}).get("timeout") or ""))
        until = time.monotonic() + limit_s if limit_s else None
        while (code := attempt.exit_code()) is None:
            if job.preempt.is_set():
                attempt.finish(job.preempt_grace_s, has_succeeded=False)
                return False
            is_late = until is not None and time.monotonic() > until
            if self._closing.is_set():
                attempt.kill()
                raise _CanceledError
            if is_late or job.cancel.is_set():
                attempt.finish(self._faults.cancel_grace_s, has_succeeded=False)
                self._end(job, attempt, "Canceled", self._late_error(limit_s) if is_late else None)
                return True
            time.sleep(_POLL_S)
        if code == 0 and job.enter("Finalizing"):
            attempt.finish(0.0, has_succeeded=True)
            self._closing.wait(self._faults.state_s)
            self._end(job, attempt, "Canceled" if job.cancel.is_set() else "Completed", None)
            return True
        attempt.finish(_FAILURE_GRACE_S, has_succeeded=code == 0)
        if job.cancel.is_set():
            self._end(job, attempt, "Canceled", None)
        else:
            self._end(job, attempt, "Failed", _exit_error(code, attempt.last_output()))
        return True

    def _late_error(self, limit_s: float) -> dict[str, Any]:
        return _error("UserError", f"The run was canceled: it exceeded its time limit of {limit_s:g} seconds.")

    def _end(self, job: Job, attempt: Attempt, status: str, error: dict[str, Any] | None) -> None:
        self._computes.give_back(last_name(job.asked.get("computeId") or ""), job.name)
        if status == "Completed":
            for name, output in job.named_outputs().items():
                if output.get("assetName"):
                    default = f"azureml://datastores/{self._storage.default_datastore}/paths/azureml/{job.name}/{name}/"
                    self._data.add_output(output, output.get("uri") or default)
        job.end(status, error)
        ended_at_s = time.monotonic()
        while time.monotonic() < ended_at_s + self._faults.last_lines_after_s and not self._closing.is_set():
            time.sleep(_POLL_S)
        attempt.push_last_lines()


def _exit_error(code: int, output: str) -> dict[str, Any]:
    """The message is a JSON text, as the service's often is."""
    text = (
        f"Execution failed. User process '/bin/bash' exited with status code {code}. Please check log file "
        f"'user_logs/std_log.txt' for error details. Error: {output}"
    )
    return _error("UserError", json.dumps({"NonCompliant": text}))


def _error(code: str, message: str) -> dict[str, Any]:
    return {
        "error": {"code": code, "message": message, "details": [], "innerError": None},
        "correlation": None,
        "environment": "eastus",
        "location": "eastus",
        "time": now(),
        "componentName": "execution-worker",
    }


def _seconds(duration: str) -> float:
    """Of an ISO duration of days, hours, minutes and seconds; 0 for none."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?", duration)
    if found is None:
        return 0.0
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
