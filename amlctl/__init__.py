"""amlctl: one project folder, run on the laptop and on Azure ML."""

__version__ = "0.1.0"
