"""`amlctl dataset …`: what a store has for everybody who uses it."""
