"""Datasets in a store: manifests, HEADs, sending and receiving. No terminal, no settings."""
