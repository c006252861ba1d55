"""Azure ML as a workspace.

    workspace.py     the `Workspace`: runs are command jobs, watched through run history
    starting.py      from a record to a job: code, environment, compute target, store
    job.py           pure: a record as job YAML, and a job's document as a record
    submission.py    the one PUT that creates a job, never lost or doubled
    git_of_job.py    the project's Git state, as the SDK writes it into a job
    code.py          code snapshots as code versions
    environment.py   environments by the hash of their content
    assets.py        registered environments, data and models: looked up, and data registered
    logs.py          logs by offset
    ending.py        what is done once about a run that has ended
    datastore.py     the default blob datastore as the store
    connection.py    ARM and run history, with errors in words
    exchange.py      HTTP: azure-core's pipelines over azure_access, also for the SDK
    sdk_client.py    `MLClient` of azure-ai-ml, imported when something is created
    place.py         pure: which cloud, which workspace
    memory.py        what never changes is asked for once
    looks.py         one look at a run: state, error, addresses of logs
    queueing.py      why a run is Queued, as its compute target tells
    records.py       records here and in the store
    artifacts.py     what a run has left with Azure ML itself
    compute.py       clusters and instances: created by the SDK, changed as whole documents
    compute_document.py  pure: a target's document in the words of its YAML, and with changes
    checks.py        what doctor tries out

Reading commands must not import `azure.ai.ml`, which takes a second: see docs/azure-clients.md.
"""
