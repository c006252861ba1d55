"""The page that `runs report` writes: one HTML file without a network."""
