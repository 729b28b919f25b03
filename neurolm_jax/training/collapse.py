"""Notice a run that falls apart: codes out of use, code vectors in few dimensions, errors far above what they were."""

import logging
import math

from neurolm_jax.errors import UserError

# Smoothed over lines of metrics.jsonl: the errors of small batches vary with the recordings in them.
DECAY = 0.95
KNOWN = 20  # lines before a value counts as what the run once reached
REMAINING = 0.6  # of the largest fraction of codes used, or rank of the code vectors
SPREADS = ("codes_used", "code_vector_rank")
ERROR_RISE = 1.12  # times the smallest error
CERTAIN = 7  # deviations of the smoothed value by which it must have changed
ERRORS = ("frequency_loss", "raw_loss", "feature_spectrum_loss", "eeg_loss", "answer_loss")


class Collapse:
    """Compares a run's metrics with the best that they were.

    Args:
      action: warn, stop or ignore (``config.faults.collapse``).
      begin: step from which on it does; a codebook settles meanwhile.
    """

    def __init__(self, action: str, begin: int = 0):
        self._action, self._begin = action, begin
        self._smooth: dict[str, float] = {}
        self._variance: dict[str, float] = {}  # of values about the smoothed one
        self._best: dict[str, float] = {}
        self._lines: dict[str, int] = {}
        self._reported: set[str] = set()

    def look(self, step: int, metrics: dict[str, float]) -> list[str]:
        """Return what has collapsed at this step and was not reported before, in words; warn of it.

        Raises:
          UserError: something has collapsed and the run is to stop.
        """
        if self._action == "ignore" or step < self._begin:
            return []
        reports = []
        for name in (*SPREADS, *ERRORS):
            value = metrics.get(name, math.nan)
            if not math.isfinite(value):
                continue
            before = self._smooth.get(name, value)
            smooth = self._smooth[name] = DECAY * before + (1 - DECAY) * value
            variance = DECAY * self._variance.get(name, 0.0) + (1 - DECAY) * (value - before) ** 2
            self._variance[name] = variance
            lines = self._lines[name] = self._lines.get(name, 0) + 1
            if lines <= KNOWN:
                continue
            best = self._best.setdefault(name, smooth)
            certain = abs(smooth - best) > CERTAIN * math.sqrt(variance * (1 - DECAY) / (1 + DECAY))
            if name in SPREADS:
                self._best[name], fallen = max(best, smooth), smooth < REMAINING * best
            else:
                self._best[name], fallen = min(best, smooth), smooth > ERROR_RISE * best
            if fallen and certain and name not in self._reported:
                self._reported.add(name)
                reports.append(f"{name} was {best:.3g} and is {smooth:.3g}")
        if reports:
            message = (
                f"step {step}: this run may be falling apart: {', '.join(reports)}. Lower config.learning_rate, or"
                " config.domain_loss_weight of a tokenizer"
            )
            if self._action == "stop":
                raise UserError(f"{message}; config.faults.collapse is stop")
            logging.getLogger(__name__).warning(message)
        return reports
