import numpy as np
import pytest
import torch
from maskedmodel_timeseries.baselines import last_value, seasonal_naive
from maskedmodel_timeseries.rolling import roll, window_count

from maskedmodel.errors import DataError


def test_the_last_value_is_repeated_missing_ones_passed_over():
    nan = torch.nan
    history = torch.tensor([[[1.0, 2, 3], [4, 5, nan], [6, nan, nan], [nan, nan, nan]]])
    expected = torch.tensor([[[3.0, 3], [5, 5], [6, 6], [nan, nan]]])
    torch.testing.assert_close(last_value(history, 2), expected, equal_nan=True)


def test_the_last_period_is_repeated_by_hand():
    draw = np.random.default_rng(0)
    for context, horizon, period in ((24, 12, 5), (5, 12, 5), (3, 12, 5), (40, 7, 7), (11, 3, 1), (20, 30, 24)):
        history = draw.normal(size=(2, 3, context)).astype(np.float32)
        expected = np.empty((2, 3, horizon), np.float32)
        for step in range(horizon):
            # The step a whole number of periods back, as few as there need to be.
            back = context + step - period * (step // period + 1)
            expected[..., step] = history[..., back] if back >= 0 else history[..., -1]
        found = seasonal_naive(torch.from_numpy(history), horizon, period)
        torch.testing.assert_close(found, torch.from_numpy(expected))


def test_a_phase_that_is_missing_takes_its_last_observed_period():
    nan = torch.nan
    history = torch.tensor([[[1.0, 2, 3, 10, nan, 30, 100, nan, nan]]])
    assert seasonal_naive(history, 4, 3).tolist() == [[[100, 2, 30, 100]]]
    never = torch.tensor([[[1.0, nan, 3, 10, nan, 30]]])
    assert seasonal_naive(never, 3, 3).tolist() == [[[10, 30, 30]]]
    assert seasonal_naive(torch.full((1, 1, 6), nan), 2, 3).isnan().all()


def test_scores_equal_a_loop_over_windows_by_hand():
    rows = np.random.default_rng(1).normal(size=(2, 60)).astype(np.float32)
    rows[1, 45] = np.nan
    squares, absolutes = [], []
    for start in range(40, 60 - 6 + 1, 3):
        history, truth = rows[:, start - 10 : start], rows[:, start : start + 6]
        for variate in range(2):
            known = history[variate][~np.isnan(history[variate])]
            for value in truth[variate]:
                if not np.isnan(value):
                    squares.append((float(known[-1]) - float(value)) ** 2)
                    absolutes.append(abs(float(known[-1]) - float(value)))
    found = roll({"last": last_value}, torch.from_numpy(rows), first=40, last=60, context=10, horizon=6, stride=3)
    assert (found.windows, found.left_out) == (5, 2)
    assert found.scores[0].mse == pytest.approx(np.mean(squares), rel=1e-6)
    assert found.scores[0].mae == pytest.approx(np.mean(absolutes), rel=1e-6)


def test_the_standard_protocol_has_its_known_number_of_windows_and_stays_within_the_test_part():
    assert [window_count(11520, 14400, horizon) for horizon in (96, 192, 336, 720)] == [2785, 2689, 2545, 2161]
    assert (window_count(0, 5, 6), window_count(0, 6, 6), window_count(0, 12, 6, 4)) == (0, 1, 2)
    seen, rows = [], torch.arange(100.0)[None]

    def spy(history, horizon):
        seen.extend(history[:, 0, -1].tolist())
        return history[..., -1:].expand(-1, -1, horizon) + torch.arange(1, horizon + 1)

    found = roll({"spy": spy}, rows, first=50, last=70, context=7, horizon=5)
    assert seen == list(range(49, 65))
    assert found.scores[0].mse == 0


def test_a_longer_history_than_there_is_begins_with_nothing():
    rows = torch.arange(30.0)[None]
    shapes = []

    def spy(history, horizon):
        shapes.append((history.shape[2], int(history[0].isnan().sum())))
        return last_value(history, horizon)

    roll({"spy": spy}, rows, first=10, last=14, context=25, horizon=4)
    assert shapes == [(25, 15)]


def test_nothing_to_score_is_refused():
    with pytest.raises(DataError, match="No window fits"):
        roll({"last": last_value}, torch.zeros(1, 30), first=20, last=25, context=5, horizon=6)
    with pytest.raises(DataError, match="Nothing can be scored"):
        roll({"last": last_value}, torch.full((1, 30), torch.nan), first=20, last=30, context=5, horizon=6)


def test_progress_counts_windows():
    done = []
    roll({"last": last_value}, torch.zeros(1, 100), first=20, last=100, context=5, horizon=6, progress=done.append)
    assert done == [32, 64, 75]
