"""Questions about pictures and their answers, as a language model is told and asked.

A conversation is text with marks of who speaks; only the answer is learnt: visual
instruction tuning, Liu et al., 2023, arXiv 2304.08485. Does it say yes to what isn't
there? POPE, Li et al., 2023, arXiv 2305.10355. Taught in 13_vision_language_model.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmcourse.generation import generate
from mmcourse.losses import IGNORE
from mmcourse.vlm import VLM

Batch = Mapping[str, Tensor]


def prompt(tokenizer, question: str, picture: Sequence[int] = ()) -> list[int]:
    """Return the tokens of one turn, up to where the answer begins.

    ``picture`` keeps places before the question. Marks that somebody typed into it are
    text, not marks: nobody ends their turn and answers for the model.
    """
    if not question.strip():
        raise ValueError("an empty question: ask something, such as 'What is this?'")
    text = tokenizer(question, add_special_tokens=False, split_special_tokens=True)
    before, after = (
        tokenizer(mark, add_special_tokens=False)["input_ids"]
        for mark in ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
    )
    return [*before, *picture, *text["input_ids"], *after]


def conversations(
    tokenizer, model: VLM, questions: Sequence[str], answers: Sequence[str]
) -> dict[str, Tensor]:
    """Return tokens (n, L) of questions with their answers, and label (n, L).

    The label is the token itself where the answer stands, its end mark included, and
    ``IGNORE`` elsewhere. Rows are filled up at their end, which no earlier token sees.
    """
    picture = [model.config.picture] * model.config.tokens
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows, starts = [], []
    for question, answer in zip(questions, answers, strict=True):
        asked = prompt(tokenizer, question, picture)
        said = tokenizer(answer, add_special_tokens=False, split_special_tokens=True)
        rows.append(torch.tensor([*asked, *said["input_ids"], end]))
        starts.append(len(asked))
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.nn.utils.rnn.pad_sequence(rows, True, end)
    place = torch.arange(tokens.shape[1])
    answer = (place >= torch.tensor(starts)[:, None]) & (place < lengths[:, None])
    return {"tokens": tokens, "label": tokens.where(answer, IGNORE)}


def loss(model: VLM, batch: Batch) -> Float[Tensor, ""]:
    """Name each token of the answers from the picture and all that stands before."""
    x = model.embed(batch["tokens"], model.see(batch["image"]))
    label = batch["label"][:, 1:]
    learnt = label != IGNORE
    if not bool(learnt.any()):
        raise ValueError(
            "no token of an answer is in the batch: labels are all ignored"
        )
    read = model.decoder.read(x)[:, :-1][learnt]  # a vocabulary of logits only there
    return F.cross_entropy(model.decoder.head(read), label[learnt])


def answers(
    model: VLM,
    tokenizer,
    features: Float[Tensor, "n F"] | None,
    questions: Sequence[str],
    steps: int = 12,
    batch: int = 64,
    **how,
) -> list[str]:
    """Answer a question about each picture; without ``features``, about none.

    ``how`` is what ``generate`` takes: nothing for the likeliest token each time.
    """
    if features is not None and len(features) != len(questions):
        raise ValueError(
            f"{len(features)} pictures, {len(questions)} questions: one for each"
        )
    places = 0 if features is None else model.config.tokens
    picture = [model.config.picture] * places
    asked = [prompt(tokenizer, question, picture) for question in questions]
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    device = next(model.parameters()).device
    found = [""] * len(asked)
    training = model.training
    model.eval()
    try:
        for rows in _alike(asked, batch):
            tokens = torch.tensor([asked[i] for i in rows], device=device)
            seen = None if features is None else _see(model, features[rows].to(device))
            told = generate(model, tokens, steps, context=seen, stop=stop, **how)
            for i, row in zip(rows, told[:, tokens.shape[1] :].tolist(), strict=True):
                found[i] = tokenizer.decode(row, skip_special_tokens=True).strip()
    finally:
        model.train(training)
    return found


@torch.no_grad()
def _see(model: VLM, features: Tensor) -> Tensor:
    return model.see(features)


def _alike(asked: list[list[int]], batch: int):
    """Yield numbers of prompts of one length, ``batch`` at a time."""
    by_length: dict[int, list[int]] = {}
    for i, tokens in enumerate(asked):
        by_length.setdefault(len(tokens), []).append(i)
    for rows in by_length.values():
        yield from (rows[i : i + batch] for i in range(0, len(rows), batch))


def polled(said: Sequence[str], there: Sequence[bool]) -> dict[str, float]:
    """Score answers to "is there a ...?": accuracy, precision, recall, F1, yes.

    "yes" is the share of answers that say so. As POPE counts: a first sentence with the
    word no or not is a no, all else a yes. A model that always says yes has recall 1
    and a share of yes of 1: it hallucinates.
    """
    yes = [not _denies(text) for text in said]
    pairs = list(zip(yes, there, strict=True))
    if len(pairs) == 0:
        raise ValueError("no answers to score")
    hits = sum(y and t for y, t in pairs)
    precision = hits / max(1, sum(yes))
    recall = hits / max(1, sum(there))
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {
        "accuracy": sum(y == t for y, t in pairs) / len(pairs),
        "precision": precision,
        "recall": recall,
        "F1": f1,
        "yes": sum(yes) / len(yes),
    }


def _denies(text: str) -> bool:
    words = text.split(".")[0].lower().replace(",", " ").split()
    return "no" in words or "not" in words
