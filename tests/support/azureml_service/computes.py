"""Clusters and compute instances: created, changed, started, stopped, deleted; nodes for jobs."""

from __future__ import annotations

import threading

from .compute import QUOTA_ERROR, Compute
from .faults import Faults
from .operations import Operations
from .place import Place
from .replies import Handler, Reply, Request, not_found, user_error


class Computes:
    """Thread-safe."""

    def __init__(self, place: Place, faults: Faults, operations: Operations) -> None:
        self._place = place
        self._faults = faults
        self._operations = operations
        self._lock = threading.Lock()
        self._computes: dict[str, Compute] = {}

    def routes(self) -> list[tuple[str, str, Handler]]:
        one = "{ws}/computes/(?P<name>[^/]+)"
        return [
            ("GET", "{ws}/computes", self._list),
            ("GET", one, lambda request: Reply(200, self._known(request.names["name"]).document(self._place))),
            ("PUT", one, self._put),
            ("DELETE", one, self._delete),
            ("POST", f"{one}/(?P<action>start|stop|restart)", self._act),
        ]

    def check(self, name: str, nodes: int) -> None:
        """Raises RefusedError where a job with so many nodes can never run."""
        compute = self._find(name)
        if compute is None:
            raise user_error(400, f"Unknown compute target '{name}'.", "ComputeTargetNotFound")
        if nodes > compute.max_nodes:
            text = f"The job asks for {nodes} nodes, and compute {name} has at most {compute.max_nodes}."
            raise user_error(400, text, "BadArgument")

    def attach(self, name: str) -> None:
        """A Kubernetes cluster of the user's own."""
        asked = {"computeType": "Kubernetes", "properties": {"namespace": "default"}}
        with self._lock:
            self._computes[name] = Compute(name, asked, None, self._place.region, self._operations.start(), "Creating")

    def take(self, name: str, job: str, nodes: int) -> bool:
        """True when the nodes are the job's; False as long as it has to wait."""
        compute = self._find(name)
        if compute is None:
            return False
        with self._lock:
            compute.errors = [{"error": QUOTA_ERROR}] if self._faults.quota == "nodes" else None
            if compute.errors or not compute.is_usable or compute.busy_nodes + nodes > compute.max_nodes:
                return False
            compute.jobs[job] = nodes
            return True

    def give_back(self, name: str, job: str) -> None:
        compute = self._find(name)
        if compute is not None:
            with self._lock:
                compute.jobs.pop(job, None)

    def _find(self, name: str) -> Compute | None:
        with self._lock:
            compute = self._computes.get(name.lower())
            if compute is not None and compute.is_gone:
                del self._computes[name.lower()]
                return None
            return compute

    def _known(self, name: str) -> Compute:
        compute = self._find(name)
        if compute is None:
            raise not_found(f"Compute {name} was not found.")
        return compute

    def _list(self, request: Request) -> Reply:
        found = [compute for name in list(self._computes) if (compute := self._find(name)) is not None]
        return Reply(200, {"value": [compute.document(self._place) for compute in found]})

    def _put(self, request: Request) -> Reply:
        name = request.names["name"]
        asked = request.body.get("properties") or {}
        if asked.get("computeType") not in ("AmlCompute", "ComputeInstance"):
            raise user_error(400, f"Compute type {asked.get('computeType')} is not served here.", "BadArgument")
        present = self._find(name)
        if present is None and self._faults.quota == "refused":
            raise user_error(400, QUOTA_ERROR["message"], QUOTA_ERROR["code"])
        operation = self._operations.start(QUOTA_ERROR if self._faults.quota == "operation" else None)
        if present is None:
            location = request.body.get("location") or self._place.region
            compute = Compute(name, asked, request.body.get("tags"), location, operation, "Creating")
            compute.identity = request.body.get("identity")
            if self._faults.quota == "nodes":
                compute.errors = [{"error": QUOTA_ERROR}]
            with self._lock:
                self._computes[name.lower()] = compute
        else:
            compute = present
            compute.change(request.body, operation)
        return Reply(201, compute.document(self._place), self._operations.headers(operation, request))

    def _delete(self, request: Request) -> Reply:
        compute = self._find(request.names["name"])
        if compute is None:
            return Reply(204)
        with self._lock:
            if compute.jobs:
                text = f"Compute {compute.name} has running jobs: {', '.join(compute.jobs)}."
                raise user_error(409, text, "ComputeInUse")
            compute.operation = self._operations.start()
            compute.in_progress = "Deleting"
        return Reply(202, headers=self._operations.headers(compute.operation, request))

    def _act(self, request: Request) -> Reply:
        compute = self._known(request.names["name"])
        if not compute.is_instance:
            text = f"{request.names['action']} is only for compute instances; {compute.name} is a cluster."
            raise user_error(400, text, "BadArgument")
        operation = self._operations.start()
        compute.switch(request.names["action"].lower(), operation)
        return Reply(202, headers=self._operations.headers(operation, request))
