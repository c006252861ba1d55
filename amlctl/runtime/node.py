"""One run on one node, from the record in the store to the script's exit code.

In order: read the record, datasets, config, outputs of an earlier attempt, the script (its outputs saved at intervals),
the outputs once more, the datasets that it produced, metrics. Of several processes of a node the first does what is
done once per node, and saves the outputs when the last of them has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Optional

from amlctl.core.hidden_values import filled
from amlctl.core.job import input_names
from amlctl.core.message import count, some
from amlctl.core.phases import Phase
from amlctl.core.resources import Resources
from amlctl.core.run import RunRecord
from amlctl.core.secret_names import masked
from amlctl.core.store_keys import failure_key, script_end_key
from amlctl.errors import AmlctlError, NotFound, ServiceUnavailable
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.machine import utc_now
from amlctl.runs.metrics import read_metrics
from amlctl.runs.records import load_record, load_trial, save_phases, save_record, save_resources, save_script_end
from amlctl.runtime.data import (
    OutputsSaver,
    count_attempt,
    place_datasets,
    restore_outputs,
    write_config,
)
from amlctl.runtime.log_pump import files_behind_pump
from amlctl.runtime.process_tree import become_subreaper
from amlctl.runtime.ranks import NodeRank, OwnProcess, attempt_of_first, own_process, wait_for_others
from amlctl.runtime.script import (
    OUTPUTS_VARIABLE,
    STOP_SIGNALS,
    NodeFolders,
    ScriptEnd,
    ScriptStart,
    Wakeups,
    end_leftovers,
    files_not_kept,
    find_script,
    never_due,
    place_variables,
    prepare_job,
    script_variables,
    start_of_script,
    start_script,
    wait_for_script,
)
from amlctl.runtime.tracking import send_metrics
from amlctl.runtime.usage import ResourceWatch
from amlctl.stores.contract import Store

RUNTIME_FAILED = 1
"""Exit code when the script could not be started or its results not kept; `failure.json` says why."""
_NAMED = 5
"""Folders and files that a warning names."""


@dataclass(frozen=True)
class Timing:
    """Seconds between two saves of the outputs, and from asking the script to end until it is killed."""

    save_interval_s: float = 15.0
    grace_s: float = 30.0


@dataclass(frozen=True)
class Node:
    """`store` may be read-only; everything is written to `save_store`, which is the same one, or a mount of it.

    `places` are paths of inputs and outputs of a job file that Azure ML has mounted.
    """

    store: Store
    save_store: Store
    folders: NodeFolders
    rank: NodeRank
    variables: Mapping[str, str]
    timing: Timing = Timing()
    places: Mapping[str, str] = field(default_factory=dict)

    def run(self, run: str, trial: Optional[tuple[str, int]] = None) -> int:
        """The exit code of the node; failures are written to the log and to `failure.json`, not raised. `trial` is the
        sweep and the number of the record that a run of Azure ML's begins with."""
        try:
            return self._run(run, trial)
        except AmlctlError as error:
            failure = error
        except OSError as error:
            failure = disk_error(error, "the node failed") or ServiceUnavailable(f"the node failed: {error}")
        log(failure.message + (f" ({failure.hint})" if failure.hint else ""))
        self._report(run, failure)
        return RUNTIME_FAILED

    def _run(self, run: str, trial: Optional[tuple[str, int]]) -> int:
        # Before the script runs there is nothing to save, so a stop signal ends the process at once.
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _leave)
        record = load_record(self.store, run) if trial is None else load_trial(self.store, *trial, run)
        if record is None:
            raise NotFound(f"run {run} has no record in the store", hint="submit it again")
        if trial is not None and self.rank.is_first_process and self.rank.node == 0:
            save_record(self.save_store, record)
        with files_behind_pump() as pumps, own_process(self.folders.state_dir, self.rank.local) as own:
            become_subreaper()
            return self._run_process(record, own, pumps)

    def _run_process(self, record: RunRecord, own: OwnProcess, pumps: Sequence[int]) -> int:
        """`pumps` are processes that copy the log; they end after the script."""
        run = record.run
        if record.spec.produces:
            import amlctl.runs.produced  # noqa: F401  # before the script can delete the runtime
        script = None if record.spec.command is not None else find_script(self.folders, record.spec.script)
        attempt = self._attempt(record, own)
        if self.rank.is_first_process:
            self.folders.saved_marker.unlink(missing_ok=True)
            if attempt > 1 and self.rank.node == 0:
                self.save_store.delete(failure_key(run))
        if attempt > 1:
            log(f"attempt {attempt}")
            self.save_store.delete(script_end_key(run, self._rank_of(record)))
        begun = {Phase.DATA: utc_now()}
        place_datasets(self.store, record, self.folders, log)
        restore_outputs(self.save_store, run, self.rank, self.folders)
        saver = OutputsSaver(self.save_store, run, self.rank, self.folders, self.timing.save_interval_s, log)
        if self.rank.is_first_process:
            saver.save()  # so that a fetch finds a list, if an empty one, from the start
        command, folder, variables = self._command(record, script, attempt)
        with Wakeups() as wakeups:
            start = start_of_script(self.folders)
            begun[Phase.RUN] = utc_now()
            is_first = self.rank.is_first_process
            process = start_script(command, folder, variables)
            if is_first:
                saver.start()
            watch = None
            if is_first and self.rank.node == 0:  # several processes of a node have their launcher in common
                watch = ResourceWatch(os.getpid() if record.spec.processes == 1 else os.getppid(), pumps)
            end = wait_for_script(process, wakeups, self.timing.grace_s, watch.look_if_due if watch else never_due)
            begun[Phase.SAVE] = utc_now()
            kept = [*pumps, *(watch.end() if watch is not None else ())]
            end_leftovers(process, kept, log)
            own.write_end(end.exit_code)
            if end.exit_code and not end.was_stopped:
                self._report_end(record, end.exit_code)
            if watch is not None:
                self._save_notes(run, begun, watch.resources)
            if is_first:
                has_succeeded = self._wait_for_others(record, attempt, end, wakeups)
                self._warn_of_what_is_not_kept(record, start)
                self._keep(record, saver, has_succeeded)
                if self.rank.node == 0:
                    send_metrics(record, partial(read_metrics, self.save_store, run), self.variables, log)
        return end.exit_code

    def _command(
        self, record: RunRecord, script: Optional[Path], attempt: int
    ) -> tuple[Sequence[str], Path, Mapping[str, str]]:
        """What is started, in which folder, and its variables."""
        spec = record.spec
        hidden = {name for name, value in spec.variables.items() if value is None}
        secrets = {name: value for name, value in self.variables.items() if name in hidden}
        config = write_config(record, self.folders, secrets)
        variables = script_variables(record, self.folders, script, attempt, self.variables)
        if script is None:
            command, variables = prepare_job(record, self.folders, variables, secrets, self.places)
            return command, self.folders.pipeline_dir, variables
        given_config = [] if config is None else spec.config_arguments(str(config))
        given = {name: value for name, value in spec.variables.items() if value is not None}
        command = [sys.executable, str(script), *given_config, *filled(spec.arguments, secrets)]
        return command, self.folders.container, {**variables, **self._named_places(record), **given}

    def _named_places(self, record: RunRecord) -> dict[str, str]:
        """The same names as for a job file: a dataset is an input, `outputs_dir()` the output `default`."""
        inputs = {
            f"inputs.{name}": str(self.folders.data_blobs_dir / dataset)
            for dataset, name in input_names(record.spec.manifests, record.spec.inputs).items()
        }
        return place_variables({**inputs, "outputs.default": str(self.folders.outputs_dir)})

    def _attempt(self, record: RunRecord, own: OwnProcess) -> int:
        """Which start of this node it is, from 1, the same for all of its processes."""
        attempt = None
        if not self.rank.is_first_process and record.spec.processes > 1:
            attempt = attempt_of_first(self.folders.state_dir)
        attempt = attempt or count_attempt(self.save_store, record.run, self.rank)
        own.write_attempt(attempt)
        return attempt

    def _wait_for_others(self, record: RunRecord, attempt: int, end: ScriptEnd, wakeups: Wakeups) -> bool:
        """Whether the scripts of all processes of this node have succeeded, without a stop signal."""
        is_ending = end.exit_code != 0 or end.was_stopped
        others = wait_for_others(
            self.folders.state_dir, attempt, record.spec.processes, wakeups, self.timing.grace_s, is_ending=is_ending
        )
        return others and not is_ending

    def _warn_of_what_is_not_kept(self, record: RunRecord, start: ScriptStart) -> None:
        not_kept = files_not_kept(record, self.folders, start)
        for dataset, files in not_kept.data.items():
            where = f"{count(files, 'file')} written to data_blobs/{dataset}"
            log(f"{where} will not be saved; to save such files, submit --produces {dataset}")
        if not_kept.others:
            others = some([*not_kept.others], _NAMED)
            what = f"{count(sum(not_kept.others.values()), 'file')} will not be saved: {others}"
            log(f"{what}; outputs are what is in the folder that {OUTPUTS_VARIABLE} names: file_paths.outputs_dir()")

    def _keep(self, record: RunRecord, saver: OutputsSaver, has_succeeded: bool) -> None:
        if saver.finish():
            self.folders.saved_marker.write_bytes(b"")
        if has_succeeded and self.rank.node == 0 and record.spec.produces:
            from amlctl.runs.produced import copy_registered, publish_produced

            publish_produced(self.save_store, record, self.folders.data_blobs_dir, log)
            copy_registered(self.save_store, record, self.folders.data_blobs_dir, self.places)

    def _report_end(self, record: RunRecord, exit_code: int) -> None:
        """So that it is known which process failed first: Azure ML reports the job as a whole only."""
        try:
            save_script_end(self.save_store, record.run, self._rank_of(record), exit_code, time.time_ns())
        except (AmlctlError, OSError) as error:
            log(f"cannot write the exit code {exit_code} to the store: {error}")

    def _save_notes(self, run: str, begun: Mapping[Phase, datetime], resources: Resources) -> None:
        with contextlib.suppress(AmlctlError, OSError):  # only times are lost, and what the script has used
            save_phases(self.save_store, run, begun)
            save_resources(self.save_store, run, resources)

    def _rank_of(self, record: RunRecord) -> int:
        return self.rank.node * record.spec.processes + self.rank.local

    def _report(self, run: str, failure: AmlctlError) -> None:
        document = {"kind": failure.kind, "message": masked(failure.message), "hint": masked(failure.hint)}
        try:
            self.save_store.put(failure_key(run), (json.dumps(document) + "\n").encode(), replace=True)
        except (AmlctlError, OSError) as error:
            log(f"cannot write that failure to the store: {error}")


def log(line: str) -> None:
    """A line of our own in the run's log. A full disk loses it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"[amlctl] {masked(line)}\n")
        sys.stderr.flush()


def _leave(number: int, frame: FrameType | None) -> None:
    log(f"stopped by {signal.Signals(number).name} before the script started")
    os._exit(128 + number)
