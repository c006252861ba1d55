"""Runs on this machine: each in a container folder of its own, looked after by a process of its own."""
