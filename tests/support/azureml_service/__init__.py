"""A loopback Azure ML: the control plane that the real SDK talks to, with data in Azurite and jobs that run.

With the fixture `azureml`, a process is pointed at it by `azureml.variables`; with `stock_variables` the SDK's own
transfers work, too. Then `MLClient(DefaultAzureCredential(), azureml.subscription_id, azureml.resource_group,
azureml.workspace_name)` is all it takes. MLClient writes AZUREML_CURRENT_CLOUD, which has to be unset between
services. The rest in a line each:

    with azureml.faults.while_testing() as faults: ...         switches, off again at the end
    faults.answer(429, "GET .*/jobs/", times=2, retry_after_s=1)
    faults.lose_answer("PUT .*/jobs/")                         acts, and the connection ends
    azureml.calls_like("PUT .*/jobs/")                         what was asked
    azureml.job(name).wait(), .wait_for("Running"), .statuses  a job seen from inside
    azureml.preempt(name)                                      its node is taken away
    azureml.storage                                            blobs, as the service itself sees them
"""

from .faults import Faults
from .job import Job
from .server import Call
from .service import AzureMLService

__all__ = ["AzureMLService", "Call", "Faults", "Job"]
