"""Plain files by path in a store, beside the content-addressed snapshots."""
