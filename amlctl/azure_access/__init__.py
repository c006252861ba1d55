"""How amlctl reaches Azure: what both Azure adapters use, and that knows neither of them.

connections.py     kept-alive connections to one host, proxies, certificates
response.py        answers of HTTP, read without the e-mail parser
retries.py         how often and how long a request is repeated, and who is told
network_errors.py  why a host cannot be reached, in words
login.py           tokens of DefaultAzureCredential
token_cache.py     those tokens on disk, until they run out
hosts.py           names of hosts
azure_ai_ml.py     the Azure ML SDK, loaded fast and kept off the screen
"""
