"""A language model's answers are the length-normalised likelihoods of its labels, whatever else is in the batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from kcm.errors import ConfigError
from kcm.inputs.content import Content
from kcm.large import Item, Prompt
from kcm.large.adapters.causal_lm import CausalLm, CausalLmConfig
from kcm.large.prompts import DEFAULT_TASK_PROMPT, NO_PROMPT, TaskPromptConfig, question

LABELS = ("bad", "very good", "x")
TEXTS = ["a film", "what a long and winding text about nothing at all", "ok", "Ünïcode 漢字 🙂"]


@pytest.fixture(scope="module", params=[True, False], ids=["chat", "plain"])
def folder(request, make_lm) -> Path:
    return make_lm(chat=request.param)


@pytest.fixture(scope="module")
def chat_folder(make_lm) -> Path:
    return make_lm()


def load(folder: Path, **changes) -> CausalLm:
    return CausalLmConfig(model=str(folder), **changes).build(LABELS, folder)


def reference(
    folder: Path, text: str, prompt: Prompt = NO_PROMPT, task: TaskPromptConfig = DEFAULT_TASK_PROMPT
) -> np.ndarray:
    """Probabilities computed the long way: each label behind the whole prompt, alone, without any cache."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = str(question(text, LABELS, prompt, task=task))
    if tokenizer.chat_template:
        asked = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    start = tokenizer(asked, add_special_tokens=False)["input_ids"]
    scores = []
    for label in LABELS:
        ids = tokenizer(label if tokenizer.chat_template else f" {label}", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            log_TV = model(torch.tensor([start + ids])).logits[0].double().log_softmax(-1)
        scores.append(np.mean([log_TV[len(start) + n - 1, token].item() for n, token in enumerate(ids)]))
    return softmax(scores)


def test_probabilities_are_the_softmax_of_the_labels_mean_log_likelihoods(folder):
    answers = load(folder, batch_size=3).answer([Item(text, Content(text)) for text in TEXTS])
    expected = [reference(folder, text) for text in TEXTS]
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected, atol=1e-5)
    assert [answer.label for answer in answers] == [int(row.argmax()) for row in expected]
    assert all(answer.error is None and answer.cost.seconds > 0 and answer.cost.tokens > 100 for answer in answers)
    assert np.ptp(expected, axis=0).max() > 0.01  # texts differ, or the comparison would show nothing


def test_prompts_of_all_modes_can_share_a_batch(folder):
    prompts = [
        NO_PROMPT,
        Prompt("soft", ((1, 0.75),)),
        Prompt("soft", ((0, 0.5), (2, 0.25))),
        Prompt("hard", (), (0, 2)),
    ]
    answers = load(folder).answer([Item("1", Content("a film"), prompt) for prompt in prompts])
    for answer, prompt in zip(answers[:3], prompts[:3], strict=True):
        np.testing.assert_allclose(answer.probabilities, reference(folder, "a film", prompt), atol=1e-5)
    hard = reference(folder, "a film", prompts[3])[[0, 2]]
    np.testing.assert_allclose(answers[3].probabilities, [hard[0] / hard.sum(), 0, hard[1] / hard.sum()], atol=1e-5)


def test_a_text_too_long_for_the_model_is_cut_and_the_question_stays_whole(chat_folder):
    model = load(chat_folder, max_length=512, max_chars=100_000)
    (answer,) = model.answer([Item("1", Content("long " * 5000))])
    assert answer.error is None
    assert answer.cost.tokens <= 512 + sum(map(len, LABELS))
    (shorter,) = model.answer([Item("1", Content("long " * 4000))])
    np.testing.assert_array_equal(answer.probabilities, shorter.probabilities)


def test_instructions_that_leave_no_room_are_an_error_of_the_item(chat_folder):
    (answer,) = load(chat_folder, max_length=64).answer([Item("1", Content("a film"))])
    assert answer.error is not None
    assert "no room for the text" in answer.error


def test_logits_that_are_not_numbers_are_an_error_of_their_item_alone(chat_folder, tmp_path):
    tokenizer, network = AutoTokenizer.from_pretrained(chat_folder), AutoModelForCausalLM.from_pretrained(chat_folder)
    with torch.no_grad():  # the embedding of a byte that one of the texts has
        network.get_input_embeddings().weight[tokenizer("~", add_special_tokens=False)["input_ids"]] = float("nan")
    tokenizer.save_pretrained(tmp_path)
    network.save_pretrained(tmp_path)
    broken, fine = load(tmp_path).answer([Item("1", Content("a ~ film")), Item("2", Content("a film"))])
    assert (broken.label, broken.error) == (None, "the model's logits are not numbers")
    np.testing.assert_allclose(fine.probabilities, reference(chat_folder, "a film"), atol=1e-5)


def test_a_payer_s_own_prompt_is_read_as_by_a_server(folder):
    words = {"instructions": "Which one? {labels}", "descriptions": {"bad": "a waste"}}
    task = TaskPromptConfig(**words, examples=[{"text": "so so", "label": "x"}])
    (answer,) = load(folder, prompt=task).answer([Item("1", Content("a film"))])
    np.testing.assert_allclose(answer.probabilities, reference(folder, "a film", task=task), atol=1e-5)
    assert np.abs(answer.probabilities - reference(folder, "a film")).max() > 1e-3
    with pytest.raises(ConfigError, match="'mars' is no label"):
        load(folder, prompt=TaskPromptConfig(descriptions={"mars": "a planet"}))


def test_the_identity_follows_weights_wording_and_reading(chat_folder, make_lm):
    def identity(folder=chat_folder, labels=LABELS, **changes):
        return CausalLmConfig(model=str(folder), **changes).identity(labels, folder)

    assert identity() == identity(batch_size=1)
    others = [
        identity(make_lm(seed=1)),
        identity(labels=("a", "b")),
        identity(max_chars=10),
        identity(dtype="bfloat16"),
        identity(prompt=TaskPromptConfig(descriptions={"bad": "a waste"})),
    ]
    assert len({identity(), *others}) == 6


def test_a_prompt_longer_than_the_model_is_refused(chat_folder):
    with pytest.raises(ConfigError, match="max_length = 4096, but the model takes 2048 tokens"):
        load(chat_folder, max_length=4096)
