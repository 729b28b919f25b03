"""A run that falls apart says so, and a healthy one is left alone."""

import logging

import numpy as np
import pytest

from neurolm_jax.errors import UserError
from neurolm_jax.training.collapse import Collapse


def noisy(values, seed=0, deviation=0.02):
    return values + deviation * np.random.default_rng(seed).standard_normal(len(values))


# Step by step what a tokenizer did whose adversary won, and the same run without the adversary.
FALLING = {
    "codes_used": noisy(np.interp(np.arange(150), [0, 50, 100, 150], [0.3, 0.89, 0.41, 0.37])),
    "raw_loss": noisy(np.interp(np.arange(150), [0, 50, 100, 150], [1.1, 0.83, 1.0, 1.0])),
}
HEALTHY = {
    "codes_used": noisy(np.interp(np.arange(150), [0, 50, 100, 150], [0.3, 0.98, 0.96, 0.96])),
    "raw_loss": noisy(np.interp(np.arange(150), [0, 50, 100, 150], [1.1, 0.79, 0.79, 0.78])),
}


def run(collapse, metrics):
    reports = {}
    for line in range(150):
        values = {name: float(series[line]) for name, series in metrics.items()}
        for report in collapse.look(10 * line, values):
            reports[report.split()[0]] = 10 * line
    return reports


def test_a_collapse_is_reported_once_and_early(caplog):
    with caplog.at_level(logging.WARNING):
        reports = run(Collapse("warn"), FALLING)
    assert "codes_used" in reports and all(500 < step < 1400 for step in reports.values())
    risen = run(Collapse("warn"), {"eeg_loss": noisy(np.interp(np.arange(150), [0, 60, 80, 150], [3, 2, 2.6, 2.6]))})
    assert set(risen) == {"eeg_loss"} and 600 < risen["eeg_loss"] < 1200
    fallen = run(
        Collapse("warn"),
        {"code_vector_rank": noisy(np.interp(np.arange(150), [0, 60, 80, 150], [9, 12, 4, 4]), 0, 0.3)},
    )
    assert set(fallen) == {"code_vector_rank"} and 600 < fallen["code_vector_rank"] < 1200
    assert "falling apart" in caplog.text and "config.domain_loss_weight" in caplog.text


def test_a_healthy_run_is_left_alone():
    assert not run(Collapse("stop"), HEALTHY)
    for seed in range(20):  # batches of other recordings each time
        assert not run(Collapse("stop"), {"raw_loss": noisy(np.full(150, 0.7), seed, 0.1)})
    assert not run(Collapse("stop"), {"codes_used": np.full(150, np.nan), "raw_loss": np.full(150, np.inf)})


def test_a_run_may_be_stopped_or_let_go_on():
    with pytest.raises(UserError, match="faults.collapse is stop"):
        run(Collapse("stop"), FALLING)
    assert not run(Collapse("ignore"), FALLING)
