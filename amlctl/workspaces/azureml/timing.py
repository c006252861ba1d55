"""How often a run is looked at. Seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AzureMLTiming:
    """The state is asked for every `first_poll_s` at first, then ever more seldom, up to `longest_poll_s`, as long as
    nothing happens; the log that is followed every `log_poll_s`. What was learned counts as the present for `fresh_s`.
    After the end of a run a log is complete when nothing has come for `settle_s`, or the run has ended
    `settled_after_s` ago. Who is Queued for `queue_patience_s` asks the compute target why, and again after
    `queue_fresh_s`.
    """

    first_poll_s: float = 1.0
    longest_poll_s: float = 5.0
    log_poll_s: float = 1.0
    fresh_s: float = 0.5
    settle_s: float = 1.0
    settled_after_s: float = 120.0
    queue_patience_s: float = 15.0
    queue_fresh_s: float = 30.0

    def poll_s(self, quiet_s: float) -> float:
        """The pause between two looks at a run of which nothing was heard for `quiet_s`."""
        return min(self.longest_poll_s, max(self.first_poll_s, _PART_OF_QUIET * quiet_s))


_PART_OF_QUIET = 0.1


DEFAULT_TIMING = AzureMLTiming()
