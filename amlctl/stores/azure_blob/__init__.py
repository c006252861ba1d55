"""Azure Blob Storage as a store.

    store.py        the `Store`: values as block blobs, parallel blocks and ranges
    upload.py       large values: which blocks exist already, which have to be sent
    blocks.py       pure: where a file is cut, so that an edit or an insertion changes few blocks
    service.py      the verbs that the store needs, by azure-storage-blob
    direct.py       requests that come in thousands, by azure-core alone
    answer.py       the service's answers, and refusals in words
    credentials.py  account key, SAS, or a token of the login
    address.py      store URLs

Both ways use the transport and the retry policy of `azure_access/`: see `docs/azure-clients.md`.
"""
