"""Azure ML as a workspace.

    workspace.py         the `Workspace`: runs are command jobs, watched through run history
    connection.py        ARM and run history, refusals in words, a memory from command to command
    clients.py           azure-core pipelines over azure_access, and `MLClient` of azure-ai-ml
    address.py           pure: which cloud, which workspace
    datastores.py        datastores as stores, and their credentials
    assets.py            data, models, code snapshots and environments
    job.py               pure: a record as job YAML, a job's document as a record
    starting.py          from a record or a job file to a job: one PUT, never lost or doubled
    looks.py             state, error, logs, services, children and metrics of an active run
    sweeps.py            sweeps and pipelines: a parent and its runs
    records.py           records here, runs that Azure ML does not find, lists of jobs
    ending.py            how a run ended, and what happens once after it
    logs.py              logs by offset
    artifacts.py         files that a run has left in Azure ML
    compute.py           clusters and instances: created by the SDK, changed as whole documents
    compute_document.py  pure: a target's document in the words of its YAML; why a run is queued
    checks.py, probe.py  `doctor` and `doctor --probe`

Reading commands must not import `azure.ai.ml`, which takes a second: see docs/azure-clients.md.
"""
