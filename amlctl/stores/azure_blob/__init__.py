"""Azure Blob Storage as a store.

    store.py        the `Store`: values as block blobs, parallel blocks and ranges
    upload.py       large values: which blocks are there already, which have to go
    blocks.py       pure: where a file is cut, so that an edit or an insertion changes few blocks
    service.py      the verbs that the store needs, by azure-storage-blob
    direct.py       the requests that come in thousands, by azure-core alone
    body.py         what a request sends
    answer.py       what the service has answered
    refusals.py     what it refuses, in words
    window.py       how much may be under way, by what the line carries
    credentials.py  account key, SAS, or a token of the login
    address.py      store URLs

Both ways go over the transport and the retry policy of `azure_access/`: see `docs/azure-clients.md`.
"""
