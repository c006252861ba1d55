"""What belongs to a run in any workspace: its record, code, outputs and what it has produced."""
