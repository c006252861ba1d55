"""Between this disk and a store: manifests and HEADs, sending, receiving. No terminal, no settings."""
