"""A loopback Azure ML: the control plane that the real SDK talks to, with data in Azurite and jobs that run."""

from .faults import Faults
from .job import Job
from .server import Call
from .service import AzureMLService

__all__ = ["AzureMLService", "Call", "Faults", "Job"]
