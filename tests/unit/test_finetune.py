"""Weights of another charset or label length: what is kept, what begins anew, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.charsets import DIGITS_AND_LOWERCASE, PRINTABLE
from model.checkpoints.loading import WeightsError, load, read_weights, save_weights
from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.network import PARSeq
from model.training.finetune import begin_with

OLD = PARSeqConfig(
    charset_train=DIGITS_AND_LOWERCASE, embed_dim=24, enc_num_heads=2, dec_num_heads=2, enc_depth=1, max_label_length=6
)


def network(config: PARSeqConfig, seed: int) -> PARSeq:
    torch.manual_seed(seed)
    return PARSeq(config).eval()


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("length", [4, 9])
def test_what_both_have_is_kept_wherever_it_stands(told: bool, length: int) -> None:
    old = network(OLD, 1)
    target = network(replace(OLD, charset_train="éz0a", max_label_length=length), 2)
    fresh = {name: value.clone() for name, value in target.state_dict().items()}
    kept = begin_with(target, old.state_dict(), OLD if told else None, "old.ckpt")
    for name, place in (("z", 2), ("0", 3), ("a", 4)):
        was = OLD.charset_train.index(name) + 1
        assert torch.equal(target.head.weight[place], old.head.weight[was])
        assert torch.equal(target.head.bias[place], old.head.bias[was])
        assert torch.equal(target.text_embed.embedding.weight[place], old.text_embed.embedding.weight[was])
    assert torch.equal(target.head.weight[0], old.head.weight[0])
    assert torch.equal(target.head.weight[1], fresh["head.weight"][1])
    # End, begin and pad.
    assert torch.equal(target.text_embed.embedding.weight[[0, 5, 6]], old.text_embed.embedding.weight[[0, 37, 38]])
    both = min(length, 6) + 1
    assert torch.equal(target.pos_queries[:, :both], old.pos_queries[:, :both])
    assert torch.equal(target.pos_queries[:, both:], fresh["pos_queries"][:, both:])
    assert torch.equal(target.encoder.pos_embed, old.encoder.pos_embed)
    assert (kept.characters, kept.new, len(kept.dropped)) == (3, "é", 33)
    new = "; 3 new ones begin at random; all" if length == 9 else "; all"
    assert (
        f"1 new ones begin at random: 'é'; 33 are dropped: '123456789bcdefghijklmnopqrstuvwxy'; {both} positions are kept{new}"
        in str(kept)
    )


def test_the_same_network_is_kept_whole_and_reads_the_same() -> None:
    old, target = network(OLD, 1), network(OLD, 2)
    assert str(begin_with(target, old.state_dict(), None, "old.pt")) == "beginning with old.pt: all weights are kept"
    images = torch.randn(2, 3, 32, 128)
    assert torch.equal(old(images), target(images))


def test_known_characters_read_the_same_in_a_larger_charset() -> None:
    old = network(OLD, 1)
    target = network(replace(OLD, charset_train="é" + DIGITS_AND_LOWERCASE), 2)
    begin_with(target, old.state_dict(), OLD, "old.pt")
    images = torch.randn(2, 3, 32, 128)
    with torch.inference_mode():
        before, after = old(images, decode_ar=False, refine_iters=0), target(images, decode_ar=False, refine_iters=0)
    torch.testing.assert_close(after[..., [0, *range(2, 38)]], before)


def test_another_network_is_refused() -> None:
    old = network(OLD, 1)
    with pytest.raises(WeightsError, match="was trained with enc_depth 1, not 2"):
        begin_with(network(replace(OLD, enc_depth=2), 2), old.state_dict(), OLD, "old.ckpt")
    with pytest.raises(WeightsError, match="another size"):
        begin_with(network(replace(OLD, embed_dim=48), 2), old.state_dict(), None, "old.pt")
    with pytest.raises(WeightsError, match="does not tell the charset of its 3 characters"):
        begin_with(network(OLD, 2), network(replace(OLD, charset_train="abc"), 1).state_dict(), None, "old.pt")


def test_written_weights_tell_their_architecture(tmp_path: Path) -> None:
    old = network(OLD, 1)
    save_weights(old, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors")[1] == OLD
    assert load(weights=tmp_path / "w.safetensors").config == OLD
    with pytest.raises(WeightsError, match="was trained with charset_train"):
        load(config=replace(OLD, charset_train=PRINTABLE), weights=tmp_path / "w.safetensors")
