"""LoRA by hand, against peft, and what it must never change."""

import peft
import pytest
import torch
from torch import nn

from mmcourse import lora
from mmcourse.lora import LoRALinear
from mmcourse.transformer import Decoder, DecoderConfig

NAMES = ("qkv", "out", "gate", "up", "down")


def decoder(**kwargs):
    torch.manual_seed(0)
    config = DecoderConfig(
        40, 32, 16, 2, 4, 2, positions="rotary", gated=True, **kwargs
    )
    return Decoder(config).eval()


def disturbed(model):
    """Give every change numbers, as training does."""
    for name, tensor in lora.changes(model).items():
        if name.endswith("up"):
            tensor.copy_(torch.randn(tensor.shape) / 4)
    return model


def test_a_layer_by_hand():
    linear = nn.Linear(2, 2)
    linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    linear.bias.data = torch.tensor([0.5, 0.0])
    layer = LoRALinear(linear, rank=1, alpha=3)
    layer.down.data, layer.up.data = (
        torch.tensor([[1.0, 1]]),
        torch.tensor([[0.0], [2]]),
    )
    # (1, 2): W x + b = (1.5, 4); A x = 3; B A x = (0, 6); times alpha / r = 3.
    assert layer(torch.tensor([1.0, 2.0])).tolist() == [1.5, 22.0]
    assert layer.weight.tolist() == [[1.0, 0.0], [6.0, 8.0]]
    assert layer.bias is linear.bias


def test_an_adapted_model_begins_as_it_was_and_only_changes_learn():
    model, tokens = decoder(), torch.arange(6)[None]
    before = model(tokens)
    frozen = {name: p.clone() for name, p in model.named_parameters()}
    lora.adapt(model, NAMES, rank=3)
    assert torch.equal(model(tokens), before)
    model(tokens).square().sum().backward()
    learnt = {n for n, p in model.named_parameters() if p.grad is not None}
    assert learnt == set(lora.changes(model))
    assert len(learnt) == 2 * 2 * len(NAMES)
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= p.grad
    assert not torch.allclose(model(tokens), before, atol=1e-3)
    kept = {n.replace(".linear", ""): p for n, p in model.named_parameters()}
    assert all(torch.equal(kept[name], p) for name, p in frozen.items())


def test_merged_does_the_same_with_the_layers_there_were():
    model, tokens = disturbed(lora.adapt(decoder(), NAMES)), torch.arange(9)[None]
    learnt = model(tokens)
    merged = lora.merge(model)
    assert torch.allclose(merged(tokens), learnt, atol=1e-5)
    assert merged.state_dict().keys() == decoder().state_dict().keys()
    assert not any(p.requires_grad for p in merged.parameters())


def test_strength_lies_between_the_frozen_and_the_learnt_model():
    tokens = torch.arange(9)[None]
    model = disturbed(lora.adapt(decoder(), NAMES))
    learnt = model(tokens)
    lora.strengthen(model, 0)
    assert torch.equal(model(tokens), decoder()(tokens))
    lora.strengthen(model, 1)
    assert torch.equal(model(tokens), learnt)
    layer = LoRALinear(nn.Linear(4, 3), 2)
    layer.up.data = torch.randn(3, 2)
    x, whole = torch.randn(5, 4), layer.weight
    layer.strength = 0.5
    half = (whole + layer.linear.weight) / 2
    assert torch.allclose(layer.weight, half, atol=1e-6)
    assert torch.allclose(layer(x), x @ half.T + layer.bias, atol=1e-5)


def test_changes_are_all_that_a_second_copy_needs(tmp_path):
    model = disturbed(lora.adapt(decoder(), NAMES))
    other = lora.adapt(decoder(), NAMES)
    rest = other.load_state_dict(lora.changes(model), strict=False)
    assert rest.unexpected_keys == []
    assert all(not k.endswith((".down", ".up")) for k in rest.missing_keys)
    tokens = torch.arange(5)[None]
    assert torch.equal(model(tokens), other(tokens))


def test_cross_attention_uses_the_change_of_its_keys_too():
    model = decoder(cross=True)
    tokens, context = torch.arange(5)[None], torch.randn(1, 3, 16)
    disturbed(lora.adapt(model, ("qkv",)))
    learnt = model(tokens, context)
    assert torch.allclose(lora.merge(model)(tokens, context), learnt, atol=1e-5)


def test_it_is_pefts():
    plain, x = nn.Sequential(nn.Linear(6, 8)), torch.randn(3, 6)
    ours = LoRALinear(nn.Linear(6, 8), rank=4, alpha=6)
    ours.linear.load_state_dict(plain[0].state_dict())
    ours.up.data = torch.randn(8, 4)
    settings = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"])
    theirs = peft.get_peft_model(plain, settings)
    layer = theirs.base_model.model[0]
    layer.lora_A["default"].weight.data = ours.down.detach().clone()
    layer.lora_B["default"].weight.data = ours.up.detach().clone()
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    merged = theirs.merge_and_unload()[0]
    assert torch.allclose(ours.weight, merged.weight, atol=1e-6)


def test_gradients():
    layer = LoRALinear(nn.Linear(4, 3), 2).double()
    layer.up.data = torch.randn(3, 2, dtype=torch.double)
    x = torch.randn(5, 4, dtype=torch.double, requires_grad=True)
    inputs = (x, layer.down, layer.up)

    def run(x, down, up):
        values = {"down": down, "up": up}
        return torch.func.functional_call(layer, values, (x,))

    assert torch.autograd.gradcheck(run, inputs)


def test_on_a_device_in_its_dtype(place):
    layer = LoRALinear(nn.Linear(8, 8).to(place.device, place.dtype), 2)
    layer.up.data += torch.randn_like(layer.up)
    x = torch.randn(3, 8, device=place.device, dtype=place.dtype)
    y = layer(x)
    y.float().sum().backward()
    assert y.dtype == x.dtype and layer.up.grad.dtype == torch.float32
    assert torch.allclose(y, x @ layer.weight.T + layer.bias, **place.close)


@pytest.mark.parametrize("rank", [0, 5])
def test_ranks_that_a_matrix_has_not_are_refused(rank):
    with pytest.raises(ValueError, match=f"rank={rank}: a matrix 4 x 6 has ranks 1 to"):
        LoRALinear(nn.Linear(6, 4), rank)


def test_unknown_names_and_a_second_adapt_are_refused():
    with pytest.raises(ValueError, match=r"no linear layer is called \['q_proj'\]"):
        lora.adapt(decoder(), ("out", "q_proj"))
    model = decoder()
    with pytest.raises(ValueError, match="up"):
        lora.adapt(model, ("out", "q_proj"))
    assert lora.changes(model) == {}  # nothing is half done
    lora.adapt(model, ("out",))
    with pytest.raises(ValueError, match="LoRA layers already: merge"):
        lora.adapt(model, ("out",))
