"""Azure Blob Storage as a store.

    store.py        the `Store`: values as block blobs, parallel blocks and ranges
    upload.py       large values: which blocks are there already, which have to go
    blocks.py       pure: where a file is cut, so that an edit or an insertion changes few blocks
    service.py      the verbs of the Blob service, with retries
    retries.py      how often and how long a request is repeated, and who is told
    answer.py       what the service has answered
    refusals.py     what it refuses, in words
    connections.py  kept-alive connections, proxies, certificates
    window.py       how much may be under way, by what the line carries
    response.py     answers of HTTP, read without the e-mail parser
    network_errors.py  why a host cannot be reached, in words
    credentials.py  who we are: account key, SAS, or a token of the login
    login.py        tokens of DefaultAzureCredential, for whoever speaks to Azure
    token_cache.py  those tokens on disk, until they run out
    address.py      store URLs

The verbs are spoken directly over `http.client`: see `docs/architecture.md` for what that saves.
"""
