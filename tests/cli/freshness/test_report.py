"""A model of the user's beside the arms: the same rows for all, against brute force in numpy and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from headrace.cli.freshness.predictions import Predictions
from headrace.cli.freshness.report import YOURS, Result, as_text, beside, plot, words

N = 4_000


def result_of(rng, labels):
    good = np.clip(0.3 + 0.4 * (labels - 0.3) + rng.normal(0, 0.1, N), 0.01, 0.99).astype(np.float32)
    weak = np.clip(0.3 + rng.normal(0, 0.05, N), 0.01, 0.99).astype(np.float32)
    times = 1_700_000_000_000_000 + np.arange(N) * 1_000_000
    return Result(int(times[0]), times, labels.astype(np.float32), {"frozen": weak, "1h": good}, {"train": 2.0})


@pytest.fixture
def case():
    """(result, theirs float64 [n] with NaN where the model has no score)."""
    rng = np.random.default_rng(11)
    labels = (rng.random(N) < 0.3).astype(float)
    result = result_of(rng, labels)
    result.labels[rng.random(N) < 0.1] = np.nan
    theirs = np.clip(0.3 + 0.2 * (labels - 0.3) + rng.normal(0, 0.1, N), 1e-6, 1 - 1e-6)
    theirs[rng.random(N) < 0.4] = np.nan
    return result, theirs


def compared(result, theirs):
    return beside(result, theirs, Predictions(Path("p.parquet"), "p", np.arange(N + 5), np.full(N + 5, 0.5)))


def test_every_line_is_of_the_same_rows(case):
    result, theirs = case
    found = compared(result, theirs)
    rows = [i for i in range(N) if not np.isnan(theirs[i]) and not np.isnan(result.labels[i])]
    labels = result.labels[rows].astype(float)
    for arm, scores in {**result.scores, YOURS: theirs}.items():
        ours = found.to_json()[arm]
        p = scores[rows].astype(float)
        assert ours["n"] == len(rows)
        assert ours["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, p), rel=1e-9)
        assert ours["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, p), rel=1e-9)
        assert ours["calibration"] == pytest.approx(p.sum() / labels.sum(), rel=1e-9)
    whole = result.to_json()["1h"]
    assert whole["n"] > len(rows)
    assert whole["log_loss"] != found.to_json()["1h"]["log_loss"], "without the others these would be other rows"


def test_the_difference_and_its_error(case):
    result, theirs = case
    told = compared(result, theirs).to_json()["compare"]
    known = ~np.isnan(theirs) & ~np.isnan(result.labels)
    y, q = result.labels[known] > 0, theirs[known]
    for arm, scores in result.scores.items():
        p = scores[known].astype(float)
        d = -np.log(np.where(y, q, 1 - q)) + np.log(np.where(y, p, 1 - p))
        assert told["yours_minus"][arm]["log_loss_more"] == pytest.approx(d.mean())
        assert told["yours_minus"][arm]["standard_error"] == pytest.approx(d.std() / np.sqrt(known.sum()))
    assert told["matched"] == int((~np.isnan(theirs)).sum())
    assert (told["scored"], told["rows"], told["file"], told["column"]) == (N, N + 5, "p.parquet", "p")


def test_words_and_table(case):
    result, theirs = case
    found = compared(result, theirs)
    table = as_text(found, reference=False)
    assert [line.split()[0] for line in table.splitlines()[1:4]] == ["frozen", "1h", "yours"]
    assert (
        f"every line is of the {found.compared.matched:,} of 4,000 impressions that have a score in p.parquet" in table
    )
    said = words(found, example=False)
    assert "Seen: over" in said
    assert "refresh 1h instead of frozen" in said, "the arms are compared with each other, as before"
    more, error = found.differences()["1h"]
    assert f"refresh 1h has {more:.4f} less log-loss (give or take {2 * error:.4f})" in said
    assert "cannot check" in said
    assert "yours" not in as_text(result, reference=False) + words(result, example=False)


def test_a_difference_of_chance_is_called_so(case):
    result, _ = case
    same = result.scores["1h"].astype(float)
    assert "(no more than chance gives)" in words(compared(result, same), example=False)
    logits = np.log(same / (1 - same)) + np.random.default_rng(2).normal(0, 0.02, N)
    assert "(no more than chance gives)" in words(compared(result, 1 / (1 + np.exp(-logits))), example=False)


def test_one_arm_or_no_label_is_enough_to_print(case):
    result, theirs = case
    alone = Result(result.cut_us, result.times_us, result.labels, {"1h": result.scores["1h"]}, {})
    assert words(compared(alone, theirs), example=False).startswith("Yours: log-loss")
    assert words(alone, example=False) == ""
    silent = Result(result.cut_us, result.times_us, np.full(N, np.nan, np.float32), result.scores, {})
    found = compared(silent, theirs)
    assert words(found, example=False) == ""
    assert found.to_json()["compare"]["yours_minus"] == {}
    assert found.to_json()[YOURS]["log_loss"] is None


def test_the_picture_has_one_line_more(case, tmp_path, monkeypatch):
    result, theirs = case
    from matplotlib.axes import Axes

    drawn = []
    line = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axes, *args, **told: drawn.append(told["label"]) or line(axes, *args, **told)
    )
    plot(compared(result, theirs), tmp_path / "curve.png")
    assert drawn == ["frozen", "frozen", "1h", "1h", "yours", "yours"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
