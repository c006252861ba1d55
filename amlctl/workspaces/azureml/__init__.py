"""Azure ML as a workspace.

    workspace.py     the `Workspace`: runs are command jobs, watched through run history
    job.py           pure: a record as a job, and a job's document as a record
    code.py          code snapshots as code versions
    environment.py   environments by the hash of their content
    logs.py          logs by offset
    ending.py        what is done once about a run that has ended
    datastore.py     the default blob datastore as the store
    connection.py    ARM and run history, with errors in words
    exchange.py      HTTP requests, repeated where that is safe
    place.py         pure: which cloud, which workspace
    memory.py        what never changes is asked for once
    looks.py         one look at a run: state, error, addresses of logs
    queueing.py      why a run is Queued, as its compute target tells
    records.py       records here and in the store
    starting.py      the one PUT that makes a run, never lost or doubled
    artifacts.py     what a run has left with Azure ML itself
    compute.py       clusters and instances; the only one that imports `azure.ai.ml`, to make and change them
    compute_document.py  pure: a target's document as the YAML that describes one
    checks.py        what doctor tries out

All else is spoken over `http.client`: `azure.ai.ml` takes seconds to import, and asks again for what is known here.
"""
