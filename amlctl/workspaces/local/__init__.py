"""Runs on this machine: each with a container folder and a supervisor process."""
