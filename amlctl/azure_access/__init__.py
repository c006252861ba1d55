"""How amlctl reaches Azure; shared by both Azure adapters and independent of them.

transport.py       the HTTP transport of all SDK clients: connections, interrupts, bandwidth, counting
retry.py           the only retry layer
connections.py     kept-alive connections to one host, proxies, certificates, Ctrl-C
http.py            HTTP responses
network_errors.py  network errors in words
login.py           tokens of DefaultAzureCredential, cached on disk
download.py        one file of a public address
azure_ai_ml.py     the Azure ML SDK: fast import, no output, job files checked with file and line
"""
