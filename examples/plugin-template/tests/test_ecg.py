"""The conformance kit first, then what is special to this modality."""

import torch
from maskedmodel_ecg import EcgTokenizer
from maskedmodel_ecg.data import EcgRecords

from maskedmodel.testing import parametrize_checks


@parametrize_checks([EcgTokenizer, EcgTokenizer(channels=1, length=60, patch=6), EcgRecords])
def test_conformance(check):
    check()


def test_a_token_is_a_piece_of_one_channel():
    tokenizer = EcgTokenizer(channels=2, length=6, patch=3)
    tokens = tokenizer.tokenize(torch.arange(12.0).reshape(1, 2, 6))
    assert tokens.values.tolist() == [[[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]]
    assert tokens.channel.tolist() == [0, 0, 1, 1]
