"""What belongs to a run wherever it runs: its record, code, outputs and what it has produced."""
