"""The embeddings example: at least the lesson's figures on vectors never trained on, exact on the board."""

import doctest

import pytest
import torch
import transfer_embeddings as example

from .terminal import printed


@pytest.fixture(scope="module")
def result() -> example.Result:
    return example.run()


def test_the_docstrings_hold() -> None:
    assert doctest.testmod(example).failed == 0


def test_every_strategy_reaches_the_lessons_figure(result: example.Result) -> None:
    for strategy in ("base", "feature extraction", "fine-tuning", "adapted"):
        assert result.mean(strategy) >= example.LESSON[strategy], (strategy, result.accuracies)
    assert result.mean("feature extraction") > example.LESSON["feature extraction"]


def test_adaptation_helps_where_the_lessons_way_harms(result: example.Result) -> None:
    before, after = result.mean("noise"), result.mean("adapted")
    assert after > before + 0.01 and after > 0.58, result.accuracies
    assert result.mean("adapted as the lesson does") < before


def test_scored_vectors_were_not_adapted_with() -> None:
    data = example.load_data()
    assert not (data.x_test[:, None] == data.x).all(2).any()
    for draw in example.DRAWS:
        domain = example.new_domain(data, draw)
        assert (len(domain.x), len(domain.x_test)) == (20, 80)
        assert not (domain.x_test[:, None] == domain.x).all(2).any()
        assert torch.equal(domain.x, example.new_domain(data, draw).x)


def test_the_board_gives_the_same_bytes(result: example.Result) -> None:
    assert result.differing_predictions == 0
    for name, own in result.on_board.items():
        assert own.verified.target == "rv32imc" and own.verified.compared_bytes >= 80 * 4, name
        assert own.verified.differing_bytes == 0, (name, own.verified)
        assert own.accuracy >= own.float_accuracy - 0.05, name
        assert own.nano.flash_bytes < 20_000 and own.nano.arena_bytes <= 128, name
    assert result.on_board["feature extraction"].nano.head is not None


def test_tables_fit_a_terminal(result: example.Result) -> None:
    text = printed(example.print_result, result)
    for strategy in result.accuracies:
        assert f" {strategy} " in text
