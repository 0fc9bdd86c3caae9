"""A tokenizer as the files that Hugging Face's libraries read, with the ids that it has here.

tokenizer.json holds the backend with its ids moved and the special ids named, `<aco:ask>`, `<aco:column_3>`. As here
no text can spell them, unless their tokenizer is called with `split_special_tokens=False`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from aco_jax.data.files import InputError
from aco_jax.data.tokens import PAD, Special, Tokenizer

_ROLES = ("pad", "bos", "eos", "mask", "sep")  # what both libraries have a name for


def write(tokenizer: Tokenizer, folder: str | Path, length: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json; `length` is that of the longest text a network reads.

    Raises InputError where the ids cannot be kept.
    """
    content, names = json.loads(tokenizer.backend.to_str()), names_of(tokenizer.special)
    if tokenizer.offset == 0 and (own := _silent(content, PAD)) is not None:
        # Padding is the backend's token 0, which no text has; then the id that stands for such texts is empty.
        names |= {PAD: own, tokenizer.special.first: "<aco:nothing>"}
    else:
        _renumber(content, tokenizer, names)
    known = {token["content"] for token in content["added_tokens"]}
    content["added_tokens"] += [_added(i, names[i]) for i in sorted(names) if names[i] not in known]
    content["post_processor"] = None
    text = json.dumps(content, ensure_ascii=False)
    again = type(tokenizer.backend).from_str(text)
    moved = {name: again.token_to_id(name) for i, name in names.items() if again.token_to_id(name) != i}
    if moved:
        raise InputError(f"tokenizer: {moved} would have other ids than here, expected {min(names)}..{max(names)}")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "tokenizer.json").write_text(text, encoding="utf-8")
    settings: dict[str, Any] = {f"{role}_token": names[getattr(tokenizer.special, role)] for role in _ROLES}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, "padding_side": "right"}
    settings |= {"split_special_tokens": True, "clean_up_tokenization_spaces": False}
    (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def names_of(special: Special) -> dict[int, str]:
    """What each id that is no text is called."""
    starts = {field.name: getattr(special, field.name) for field in dataclasses.fields(special)}
    blocks = sorted((at, name.removeprefix("first_")) for name, at in starts.items() if name.startswith("first_"))
    ends = [at for at, _ in blocks[1:]] + [special.first + special.count]
    names = {at: name for name, at in starts.items() if not name.startswith("first") and name != "count"}
    for (start, name), end in zip(blocks, ends, strict=True):
        names |= {at: f"{name}_{at - start}" for at in range(start, end)}
    return {at: f"<aco:{name}>" for at, name in names.items()}


def _silent(content: dict[str, Any], number: int) -> str | None:
    """The token of this id, where it is a special one of the backend's own."""
    own = (token["content"] for token in content["added_tokens"] if token["id"] == number and token["special"])
    return next(own, None)


def _renumber(content: dict[str, Any], tokenizer: Tokenizer, names: dict[int, str]) -> None:
    """Moves the backend's ids to those that the tokenizer has for them, and puts the names at theirs."""
    vocabulary = content["model"].get("vocab")
    if not isinstance(vocabulary, dict):
        raise InputError(f"tokenizer: a {content['model'].get('type')} model whose token 0 is text cannot be written")
    if clash := sorted(set(names.values()) & vocabulary.keys()):
        raise InputError(f"tokenizer: {clash[0]} is a token of its own, expected a name that is free")

    def moved(number: int) -> int:
        return number + tokenizer.offset if tokenizer.offset else number or tokenizer.special.first

    content["model"]["vocab"] = {name: i for i, name in names.items()} | {
        token: moved(number) for token, number in vocabulary.items()
    }
    for token in content["added_tokens"]:
        token["id"] = moved(token["id"])


def _added(number: int, name: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": name, "special": True} | plain
