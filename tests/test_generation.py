"""Choosing tokens against transformers' own rules, exhaustive search and by hand."""

import itertools
import math

import pytest
import torch
import transformers
from test_transformer import llama
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from mmcourse import generation
from mmcourse.generation import generate, next_probabilities, smollm2
from mmcourse.transformer import Decoder, DecoderConfig


def model(**changes):
    torch.manual_seed(0)
    kwargs = {"vocab": 6, "length": 24, "dim": 16, "depth": 2, "heads": 2} | changes
    made = Decoder(DecoderConfig(**kwargs)).eval()
    for p in made.parameters():  # far from uniform, so that choices differ
        torch.nn.init.normal_(p, std=0.7)
    return made


def log_p(model, tokens, start):
    with torch.no_grad():
        steps = model(tokens[:, :-1]).log_softmax(-1)
    return steps.gather(-1, tokens[:, 1:, None])[:, start - 1 :, 0]


def test_probabilities_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert torch.allclose(next_probabilities(logits), logits.exp())
    two = torch.tensor([[0.625, 0.375, 0, 0]])
    assert torch.allclose(next_probabilities(logits, top_k=2), two)
    assert torch.allclose(next_probabilities(logits, top_p=0.7), two)  # 0.3 crosses it
    assert torch.allclose(
        next_probabilities(logits, top_p=0.2)[0, 0], torch.tensor(1.0)
    )
    cold = next_probabilities(logits, temperature=0.5)
    squared = logits.exp() ** 2
    assert torch.allclose(cold, squared / squared.sum(), atol=1e-6)


def test_probabilities_of_one_place_and_of_any_number_of_axes():
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0])
    for cut in ({}, {"top_k": 2}, {"top_p": 0.7}, {"top_k": 2, "top_p": 0.9}):
        one = next_probabilities(logits, **cut)
        assert one.shape == (4,)
        assert torch.equal(next_probabilities(logits[None], **cut)[0], one)
        assert torch.equal(next_probabilities(logits[None, None], **cut)[0, 0], one)


def test_the_nucleus_is_summed_before_top_k_cuts():
    """Of 0.5, 0.3, 0.15 and 0.05 two are 0.8; shared out, 0.5 is 0.625 and enough."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    both = next_probabilities(logits, top_k=2, top_p=0.6)
    assert torch.allclose(both, torch.tensor([0.625, 0.375, 0, 0]))


@pytest.mark.parametrize("top_k", [None, 1, 5])
@pytest.mark.parametrize("top_p", [None, 0.3, 0.9])
def test_probabilities_equal_transformers(top_k, top_p):
    torch.manual_seed(0)
    logits = torch.randn(4, 20) * 2
    theirs = TemperatureLogitsWarper(0.7)(None, logits)
    if top_p is not None:  # ours cuts both from the same sorted list
        theirs = theirs.where(
            TopPLogitsWarper(top_p)(None, theirs) > -math.inf, -math.inf
        )
    if top_k is not None:
        theirs = TopKLogitsWarper(top_k)(None, theirs)
    ours = next_probabilities(logits, 0.7, top_k, top_p)
    assert torch.allclose(ours, theirs.softmax(-1), atol=1e-6)


def test_greedy_equals_transformers_and_the_model_without_a_cache():
    torch.manual_seed(0)
    theirs = llama()
    theirs.generation_config.update(eos_token_id=None, pad_token_id=0, do_sample=False)
    ours, prompt = Decoder.from_llama(theirs), torch.randint(0, 60, (3, 5))
    out = generate(ours, prompt, 12)
    assert torch.equal(out, theirs.generate(prompt, max_new_tokens=12))
    slow = prompt
    for _ in range(12):
        with torch.no_grad():
            slow = torch.cat([slow, ours(slow)[:, -1:].argmax(-1)], 1)
    assert torch.equal(out, slow)


def test_draws_follow_the_probabilities():
    made, prompt = model(), torch.tensor([[1, 2]]).repeat(4000, 1)
    torch.manual_seed(0)
    drawn = generate(made, prompt, 1, temperature=0.8, top_k=3)[:, -1]
    with torch.no_grad():
        p = next_probabilities(made(prompt[:1])[:, -1], 0.8, 3)[0]
    shares = torch.bincount(drawn, minlength=6) / len(drawn)
    assert (shares - p).abs().max() < 0.03


def test_enough_beams_find_the_best_of_all_continuations():
    made, prompt, steps = model(), torch.tensor([[1, 2], [3, 0]]), 3
    best = []
    for row in prompt:
        ends = torch.tensor(list(itertools.product(range(6), repeat=steps)))
        every = torch.cat([row.expand(len(ends), -1), ends], 1)
        best.append(every[log_p(made, every, 2).sum(1).argmax()])
    found = generate(made, prompt, steps, beams=6**2)
    assert torch.equal(found, torch.stack(best))


def test_beams_find_likelier_continuations_than_greed():
    made = model()
    prompt = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    greedy = log_p(made, generate(made, prompt, 6), 2).sum(1)
    beams = log_p(made, generate(made, prompt, 6, beams=4), 2).sum(1)
    assert beams.mean() > greedy.mean() + 0.005


@pytest.mark.parametrize("beams", [1, 3])
def test_a_row_ends_at_stop_and_is_filled_with_it(beams):
    made = model()
    prompt = torch.randint(0, 6, (8, 2), generator=torch.manual_seed(1))
    out = generate(made, prompt, 12, beams=beams, stop=4)
    for row in out[:, 2:].tolist():
        if 4 in row:
            assert set(row[row.index(4) :]) == {4}
    assert any(4 in row for row in out[:, 2:].tolist())


def test_the_length_penalty_prefers_longer_ends():
    """Two ends by hand: at once with p = 0.4, or three tokens of 0.6, 0.85 and 0.75."""

    class Table(torch.nn.Module):
        def new_cache(self, batch, length, keys=0):
            self.seen = torch.zeros(batch, 0, dtype=torch.long)
            return [(self, None)]

        def reorder(self, rows):
            self.seen = self.seen[rows]

        def forward(self, tokens, context, context_mask, cache, last):
            self.seen = torch.cat([self.seen, tokens], 1)
            p = torch.full((len(tokens), 1, 3), 1e-9)
            for row, seen in zip(p[:, 0], self.seen.tolist(), strict=True):
                steps = [(0.6, 0.4), (0.85, 1e-9), (1e-9, 0.75)]
                row[0], row[2] = steps[min(len(seen), 3) - 1]
                row[1] = (1 - row[0] - row[2]).clamp(min=1e-9)
            return p.log()

    def ends(penalty):
        kwargs = {"beams": 2, "stop": 2, "length_penalty": penalty}
        return generate(Table(), torch.tensor([[0]]), 3, **kwargs)[0].tolist()

    assert ends(0.0) == [0, 2, 2, 2]  # 0.4 > 0.6 * 0.85 * 0.75 = 0.3825
    assert ends(1.0) == [0, 0, 0, 2]  # ln 0.4 = -0.92 < ln 0.3825 / 3 = -0.32


@pytest.mark.parametrize("how", [{}, {"beams": 2}])
def test_what_a_mask_hides_of_a_context_is_not_read(how):
    made = model(cross=True)
    prompt, context = torch.tensor([[1], [1]]), torch.randn(2, 4, 16) * 2
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    told = generate(made, prompt, 8, context=context, context_mask=mask, **how)
    other = context.clone()
    other[1, 2:] = 9.0
    same = generate(made, prompt, 8, context=other, context_mask=mask, **how)
    assert torch.equal(told, same)
    open_ = torch.ones_like(mask)  # without the hiding it would be another text
    seen = generate(made, prompt, 8, context=other, context_mask=open_, **how)
    assert not torch.equal(told[1], seen[1]) and torch.equal(told[0], seen[0])


def test_a_context_steers_and_rows_stay_apart():
    made = model(cross=True)
    prompt, context = torch.tensor([[1], [1]]), torch.randn(2, 3, 16) * 2
    mask = torch.tensor([[True] * 3, [True, False, False]])
    for beams in (1, 3):
        kwargs = {"steps": 8, "beams": beams}
        both = generate(made, prompt, context=context, context_mask=mask, **kwargs)
        for i in range(2):
            alone = generate(
                made,
                prompt[:1],
                context=context[i : i + 1],
                context_mask=mask[i : i + 1],
                **kwargs,
            )
            assert torch.equal(alone[0], both[i])
        assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"beams": 0}, "beams=0"),
        ({"beams": 2, "temperature": 1.0}, "choose one of them"),
        ({"top_k": 3}, "top_k and top_p need temperature > 0"),
        ({"top_p": 0.9}, "top_k and top_p need temperature > 0"),
        ({"beams": 2, "top_k": 3}, "top_k and top_p need temperature > 0"),
        ({"temperature": 1.0, "top_k": 0}, "top_k=0"),
        ({"temperature": 1.0, "top_p": 1.2}, "top_p=1.2"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"steps": 30}, "room for 24"),
    ],
)
def test_what_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        generate(model(), torch.tensor([[1]]), **{"steps": 2} | kwargs)


def test_smollm2_answers_and_equals_transformers(monkeypatch):
    """The real weights, read again by transformers: the cache has lost nothing."""
    decoder, tokenizer = smollm2()
    file = next(generation.assets.path("smollm2").glob("*.gguf"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    kwargs = {"add_generation_prompt": True, "return_tensors": "pt"}
    tokens = tokenizer.apply_chat_template(chat, **kwargs)["input_ids"]
    with torch.no_grad():
        assert (decoder(tokens) - theirs(tokens).logits).abs().max() < 1e-3
    out = generate(decoder, tokens, 20, stop=tokenizer.eos_token_id)
    assert "Paris" in tokenizer.decode(out[0, tokens.shape[1] :])
