"""How amlctl reaches Azure: what both Azure adapters give to Microsoft's SDKs, and that knows neither of them.

transport.py       the HTTP transport of all clients: connections, interrupts, bandwidth, counting
answered.py        an answer as the SDKs read it
retry.py           the one layer that repeats requests
retries.py         how often and how long it does, and the events of it
connections.py     kept-alive connections to one host, proxies, certificates
interrupts.py      Ctrl-C for threads that wait for the network
response.py        answers of HTTP, read without the e-mail parser
network_errors.py  why a host cannot be reached, in words
login.py           tokens of DefaultAzureCredential
token_cache.py     those tokens on disk, until they run out
hosts.py           names of hosts
azure_ai_ml.py     the Azure ML SDK, loaded fast and kept off the screen
job_schema.py      the SDK's check of job files, with file and line in its errors
"""
