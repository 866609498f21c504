"""A picture among words: by hand, against transformers, and with what writes."""

import pytest
import torch
import transformers
from torch import nn
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from mmcourse.generation import generate
from mmcourse.transformer import Decoder, DecoderConfig
from mmcourse.vlm import VLM, Projector, VLMConfig

P = 6  # keeps a place for a token of the picture


def decoder(**kwargs):
    settings = {"positions": "rotary", "gated": True} | kwargs
    return Decoder(DecoderConfig(40, 32, 16, 2, 4, 2, **settings))


def model(tokens=2, **kwargs):
    torch.manual_seed(0)
    return VLM(VLMConfig("minilm", tokens, 5), decoder(**kwargs)).eval()


def seen(n=3):
    return torch.randn(n, 384, generator=torch.Generator().manual_seed(1))


def test_each_token_of_a_picture_stands_in_its_place():
    vlm = model()
    pictures = torch.arange(2 * 2 * 16.0).view(2, 2, 16)
    tokens = torch.tensor([[1, P, P, 9], [P, 3, 4, P]])
    x = vlm.embed(tokens, pictures)
    assert torch.equal(x[0, 1:3], pictures[0])
    assert torch.equal(x[1, [0, 3]], pictures[1])
    words = tokens != P
    assert torch.equal(x[words], vlm.decoder.embed(tokens)[words])


def test_a_picture_of_words_embeddings_reads_like_those_words():
    vlm = model()
    tokens = torch.tensor([[3, 11, 12, 4], [5, 13, 14, 7]])
    pictures = vlm.decoder.embed(tokens[:, 1:3])
    kept = tokens.clone()
    kept[:, 1:3] = P
    assert torch.equal(vlm(kept, pictures), vlm.decoder(tokens))
    assert torch.equal(vlm(tokens), vlm.decoder(tokens))  # no picture: a decoder


def test_the_projector_is_llavas():
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=6, num_attention_heads=2
        ),
        text_config=transformers.LlamaConfig(hidden_size=8, num_attention_heads=2),
    )
    theirs = LlavaMultiModalProjector(config)
    ours = Projector(6, 8, 1, 8, size=0.1)
    ours.net[0].load_state_dict(theirs.linear_1.state_dict())
    ours.net[2].load_state_dict(theirs.linear_2.state_dict())
    x = torch.randn(5, 6)
    assert torch.allclose(ours.net(x), theirs(x), atol=1e-6)
    tokens = ours(x)
    assert tokens.shape == (5, 1, 8)
    expected = nn.functional.layer_norm(theirs(x), (8,))[:, None] * 0.1
    assert torch.allclose(tokens, expected, atol=1e-5)


def test_a_pictures_tokens_are_as_long_as_words_on_average():
    vlm = model()
    rms = vlm.decoder.embed.token.weight.square().mean().sqrt()
    shown = vlm.see(seen())
    assert torch.allclose(shown.square().mean(-1).sqrt(), rms.expand(3, 2), rtol=1e-2)


def test_it_reads_as_transformers_llama_reads_embeddings():
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).eval()
    vlm = VLM(VLMConfig("minilm", 2, 5), Decoder.from_llama(theirs)).eval()
    tokens = torch.tensor([[1, P, P, 9, 8], [P, P, 3, 4, 2]])
    pictures = vlm.see(seen(2))
    x = vlm.embed(tokens, pictures)
    expected = theirs(inputs_embeds=x).logits
    assert torch.allclose(vlm(tokens, pictures), expected, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_writes_with_it(beams):
    vlm = model()
    pictures = vlm.see(seen())
    tokens = torch.tensor([[1, P, P, 9]]).expand(3, -1)
    told = generate(vlm, tokens, 5, context=pictures, beams=beams)
    assert told.shape == (3, 9)
    if beams == 1:  # without a cache, word by word
        own = tokens
        for _ in range(5):
            best = vlm(own, pictures)[:, -1].argmax(-1, keepdim=True)
            own = torch.cat([own, best], dim=1)
        assert torch.equal(told, own)


def test_a_model_that_writes_the_pictures_token_itself_goes_on():
    vlm = model()
    with torch.no_grad():  # whatever it reads, the likeliest next token is P
        vlm.decoder.norm.weight.zero_()
        vlm.decoder.norm.bias.fill_(1.0)
        vlm.decoder.embed.token.weight[P] = 1.0
    told = generate(vlm, torch.tensor([[1, P, P, 9]]), 3, context=vlm.see(seen(1)))
    assert told[0, 4:].tolist() == [P, P, P]


def test_what_comes_before_a_picture_doesnt_see_it_and_what_comes_after_does():
    vlm, tokens = model(), torch.tensor([[1, 2, P, P, 9]]).expand(3, -1)
    out = vlm(tokens, vlm.see(seen()))
    assert torch.allclose(out[0, :2], out[1, :2], atol=1e-6)
    assert not torch.allclose(out[0, 4], out[1, 4], atol=1e-4)


def test_gradients_reach_the_projector_through_a_frozen_decoder():
    vlm = model()
    vlm.decoder.requires_grad_(False)
    vlm(torch.tensor([[1, P, P, 9]]), vlm.see(seen(1))).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in vlm.projector.parameters())
    assert all(p.grad is None for p in vlm.decoder.parameters())
    projector = Projector(3, 4, 2, 5, 0.1).double()
    x = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(projector, x)


def test_on_a_device_in_its_dtype(place):
    vlm = model().to(place.device, place.dtype)
    tokens = torch.tensor([[1, P, P, 9]]).expand(3, -1)
    told = vlm(tokens.to(place.device), vlm.see(seen().to(place.device, place.dtype)))
    expected = model()(tokens, model().see(seen()))
    assert told.dtype == place.dtype
    assert torch.allclose(told.float().cpu(), expected, **place.close)


@pytest.mark.parametrize("places", [0, 1, 3])
def test_other_numbers_of_places_are_refused(places):
    tokens = torch.tensor([[*[P] * places, 1]])
    with pytest.raises(
        ValueError, match=rf"keep \[{places}\] places for a picture of 2"
    ):
        model()(tokens, torch.zeros(1, 2, 16))


def test_places_without_a_picture_are_refused():
    with pytest.raises(ValueError, match=r"keep \[1\] places for a picture of 0"):
        model()(torch.tensor([[1, P]]))


def test_models_of_no_sense_are_refused():
    for positions in ("learned", "sinusoidal"):  # a picture would have no place
        with pytest.raises(ValueError, match=f"positions={positions!r}.*rotary"):
            model(positions=positions)
    with pytest.raises(ValueError, match="tokens=0"):
        VLMConfig(tokens=0)
    with pytest.raises(ValueError, match="no frozen encoder"):
        VLMConfig("clip")
