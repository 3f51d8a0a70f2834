"""Scores, groups and calibration by hand."""

from __future__ import annotations

import pytest
from PIL import Image

from artifact.text import Reading
from model.charsets import CHARSETS
from reading.scores.calibration import BINS, Reliability, Threshold
from reading.scores.error_sheet import WorstMistakes
from reading.scores.metrics import Score, Tally, combine, kind_of, length_group, score, table


def test_scores_by_hand() -> None:
    readings = [Reading("Word", 0.5), Reading("it's", 0.9), Reading("cat", 0.4), Reading("", 0.2)]
    labels = ["WORD", "its", "cart", "ab"]
    insensitive = score("set", readings, labels, CHARSETS["36"])
    # Of "word", "its", "cat" and "": the length is that of what was read.
    assert insensitive == Score("set", 4, 50.0, pytest.approx(100 * (1 + 1 + 0.75 + 0) / 4), pytest.approx(50.0), 2.5)
    assert score("set", readings, labels, CHARSETS["94"]).accuracy == 0.0


def test_data_sets_are_combined_by_their_crops() -> None:
    combined = combine([Score("a", 1, 100.0, 100.0, 90.0, 4.0), Score("b", 3, 0.0, 40.0, 10.0, 8.0)])
    assert combined == Score("Combined", 4, 25.0, 55.0, 30.0, 7.0)


def test_the_table_has_the_form_of_the_reference() -> None:
    scores = [Score("IIIT5k", 3000, 99.1, 99.65, 98.2, 5.14), Score("CUTE80", 288, 98.26, 99.2, 97.1, 5.5)]
    assert table(scores, combined=combine(scores)).splitlines() == [
        "| Dataset  | # samples | Accuracy | 1 - NED | Confidence | Label Length |",
        "|:--------:|----------:|---------:|--------:|-----------:|-------------:|",
        "| IIIT5k   |      3000 |    99.10 |   99.65 |      98.20 |         5.14 |",
        "| CUTE80   |       288 |    98.26 |   99.20 |      97.10 |         5.50 |",
        "|----------|-----------|----------|---------|------------|--------------|",
        "| Combined |      3288 |    99.03 |   99.61 |      98.10 |         5.17 |",
    ]


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("Word", "words"),
        ("two words", "words"),
        ("été", "words"),
        ("26", "numbers"),
        ("A4", "mixed"),
        ("it's", "punctuation"),
    ],
)
def test_kinds_of_text(label: str, kind: str) -> None:
    assert kind_of(label) == kind


def test_groups_of_lengths() -> None:
    assert [length_group(length) for length in (1, 3, 4, 8, 9, 14, 15, 25, 26, 99)] == [
        "1-3", "1-3", "4-8", "4-8", "9-14", "9-14", "15-25", "15-25", "26 or more", "26 or more",
    ]  # fmt: skip


def test_calibration_by_hand() -> None:
    reliability = Reliability()
    for confidence, right in ((0.96, True), (0.98, False), (0.50, True), (0.50, True), (0.0, False), (1.0, True)):
        reliability.add(confidence, right)
    # The last bin: 2 of 3 right at a mean of 0.98; that of 0.5: 2 of 2; the first: right about being wrong.
    assert reliability.expected_calibration_error() == pytest.approx((abs(2 - 2.94) + abs(2 - 1.0) + 0) / 6)
    assert [(found.crops, found.accuracy) for found in reliability.bins()] == [(1, 0.0), (2, 1.0), (3, pytest.approx(2 / 3))]


def test_the_edges_of_bins_belong_to_the_bin_below() -> None:
    reliability = Reliability()
    reliability.add(1 / BINS, True)
    reliability.add(1 / BINS + 1e-9, True)
    assert reliability.crops[:2] == [1, 1]


def test_thresholds_by_hand() -> None:
    reliability = Reliability()
    for confidence, right in ((1.0, True), (0.29, True), (0.2899, False), (0.95, True)):
        reliability.add(confidence, right)
    assert reliability.from_threshold(0.29) == Threshold(0.29, 3, 0.75, 1.0)
    assert reliability.from_threshold(0.28) == Threshold(0.28, 4, 1.0, 0.75)
    assert reliability.suggested_threshold() == 0.29
    assert [each.threshold for each in reliability.thresholds() if each.suggested] == [0.29]
    assert [each.crops for each in reliability.thresholds()][:3] == [4, 3, 2]
    other = Reliability()
    other.add(1.0, False)
    reliability.merge(other)
    assert reliability.suggested_threshold() is None
    assert reliability.from_threshold(1.0) == Threshold(1.0, 2, 0.4, 0.5)


def test_what_is_read_as_empty_is_counted() -> None:
    tally = Tally()
    for text, label, empty in (("", "", True), ("a", "", False), ("", "ab", True), ("", "ab", False), ("ab", "ab", False)):
        tally.add(text, label, 0.5, empty=empty)
    assert (tally.without_text, tally.without_text_read_empty, tally.with_text_read_empty) == (2, 1, 1)


def test_only_the_most_confident_mistakes_are_kept() -> None:
    worst = WorstMistakes(2)
    for confidence in (0.1, 0.9, 0.5, 0.9, 0.3):
        worst.add(confidence, Image.new("RGB", (4, 4)), "label", f"read {confidence}", "set")
    assert [row[0] for row in worst.rows()] == [0.9, 0.9]
