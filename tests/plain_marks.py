"""A tokenizer of a fine-tune whose marks of thought are plain text: no token of their own, and tokens that hold a part of a
mark and something else (`.</`, `></`, `>\\n\\n`), as real vocabularies have them."""

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as BPE

from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.tokenizer import Tokenizer

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
OPENING = CHATML.replace("assistant\n' }}", "assistant\n' }}{{ '<think>\n\n</think>\n\n' if enable_thinking is defined and not "
                         "enable_thinking else '<think>\n' }}")
ROLES_IN_WORDS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant: "
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXTS = ["Hmm.</think>\n\nYes, 12 + 30 is 42.</think></think>b",
         "<think>\nThe tag </think> ends it. Is x < 3, or x </ 3?\n</think>",
         "    def f(x):\n        return x < 3\n", "La réponse est 42. <think> OK", "a></ b>\n\n c.</ d"] * 9


def tokenizer(template: str = OPENING) -> Tokenizer:
    bpe = BPE(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=340, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL]))
    return Tokenizer(bpe, ChatTemplates({"default": template}, "test"),
                     {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
