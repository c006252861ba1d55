"""Azure Blob Storage as a store.

    store.py        the `Store`: values as block blobs, parallel blocks and ranges
    upload.py       large values: which blocks are there already, which have to go
    blocks.py       pure: where a file is cut, so that an edit or an insertion changes few blocks
    service.py      the verbs of the Blob service, with retries
    answer.py       what the service has answered
    refusals.py     what it refuses, in words
    window.py       how much may be under way, by what the line carries
    credentials.py  who we are: account key, SAS, or a token of the login
    address.py      store URLs

The verbs are spoken directly over `http.client`: see `docs/architecture.md` for what that saves.
"""
