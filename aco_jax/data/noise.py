"""Second wordings of a record, for denoising and for planting what is known.

`corrupt` writes a record as another shop would: the same thing, other words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aco_jax.data.tokens import Special

Row = dict[str, str]

_PRICE = re.compile(r"price|cost|msrp|amount|usd|eur", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_MEASURE = re.compile(
    r"(?<![\w.])(?P<number>\d+(?:\.\d+)?)(?:[ -]?(?P<unit>inch(?:es)?|\"|''|cm|mm|kg|lbs?|oz|g|gb|tb|mb|"
    r"w|watts?|v|volts?|ft|feet|m|ml|l|litres?|liters?|hours?|hrs?|pack|pcs|pieces)|(?P<close>in))(?!\w)",
    re.IGNORECASE,
)
_CHUNK = re.compile(_MEASURE.pattern + r"|\S+", re.IGNORECASE)  # a number is never parted from its unit
_SPELLINGS = (
    ("inch", '"', "in", "inches"),
    ("kg", "kilograms"),
    ("lb", "lbs", "pounds"),
    ("gb", "gigabytes"),
    ("tb", "terabytes"),
    ("w", "watt", "watts"),
    ("v", "volt", "volts"),
    ("ft", "feet"),
    ("l", "litre", "liter", "litres"),
    ("h", "hour", "hours", "hrs", "hr"),
    ("pack", "pcs", "pieces"),
)
_CONVERSIONS = {
    "inch": ("cm", 2.54),
    "cm": ("mm", 10.0),
    "kg": ("lb", 2.2046),
    "tb": ("gb", 1000.0),
    "l": ("ml", 1000.0),
}
_NEAR = {"a": "s", "e": "r", "i": "o", "o": "p", "u": "y", "n": "m", "t": "r", "c": "v", "s": "d", "l": "k"}


def corrupt(
    rng: np.random.Generator, row: Mapping[str, str], strength: float = 0.3, vocabulary: Sequence[str] = ()
) -> Row:
    """The same record in a second wording. `strength` in [0, 1]; 0 changes nothing.

    Words are dropped, moved, misspelt, abbreviated, or added from `vocabulary`; codes and units are written
    otherwise; attributes go missing or into the longest one. At least one value stays, and of the words
    with a digit at most half go.
    """
    found = {column: _reword(rng, column, text, strength, vocabulary) for column, text in row.items()}
    filled = [column for column, text in found.items() if text]
    if len(filled) < 2:
        return found
    main = max(filled, key=lambda column: len(found[column]))
    for column in filled:
        if column == main or rng.random() >= 0.5 * strength:
            continue
        if rng.random() < 0.5 and not _PRICE.search(column):
            parts = [found[main], found[column]]
            found[main] = " ".join(parts if rng.random() < 0.5 else parts[::-1])
        found[column] = ""
    return found


def drop_attributes(rng: np.random.Generator, row: Mapping[str, str], rate: float = 0.3) -> tuple[Row, Row]:
    """(what is left, what was withheld): each filled attribute goes with probability `rate`, one stays."""
    filled = [column for column, text in row.items() if text]
    gone = {column for column in filled if rng.random() < rate}
    if filled and len(gone) == len(filled):
        gone.discard(filled[int(rng.integers(len(filled)))])
    kept = {column: "" if column in gone else text for column, text in row.items()}
    return kept, {column: row[column] for column in row if column in gone}


def span_mask(rng: np.random.Generator, tokens: np.ndarray, special: Special, rate: float = 0.3) -> np.ndarray:
    """[B, T] int32: spans of about three tokens, `rate` of the text in all, each become one mask token.

    Specials stay, what follows moves up, the end is padded. Source: Lewis et al. 2020, BART (text infilling).
    """
    found = np.zeros_like(tokens)
    fixed = special.contains(tokens)
    starts = rng.random(tokens.shape) < rate / 3.0
    lengths = 1 + rng.poisson(2.0, tokens.shape)
    for b, row in enumerate(tokens):
        out, t = [], 0
        while t < len(row):
            if starts[b, t] and not fixed[b, t]:
                end = min(t + int(lengths[b, t]), len(row))
                while t < end and not fixed[b, t]:
                    t += 1
                out.append(special.mask)
            else:
                out.append(int(row[t]))
                t += 1
        found[b, : len(out)] = out
    return found


def typo(rng: np.random.Generator, word: str) -> str:
    """One slip of the hand in a word of letters: two swapped, one lost, doubled, or the key beside it."""
    if len(word) < 4 or not word.isalpha():
        return word
    i = int(rng.integers(1, len(word) - 1))
    kind = rng.integers(4)
    if kind == 0:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind == 1:
        return word[:i] + word[i + 1 :]
    if kind == 2:
        return word[:i] + word[i] + word[i:]
    return word[:i] + _NEAR.get(word[i].lower(), word[i]) + word[i + 1 :]


def reformat_code(rng: np.random.Generator, code: str) -> str:
    """The same letters and digits in the same order, other signs and case: KDL-40V2500 -> kdl40v2500."""
    parts = re.findall(r"[a-zA-Z]+|\d+", code)
    if not parts:
        return code
    joined = str(rng.choice(["", "-", " "]))
    if joined and len(parts) > 2:
        i = int(rng.integers(1, len(parts)))
        text = "".join(parts[:i]) + joined + "".join(parts[i:])
    else:
        text = joined.join(parts)
    return text.lower() if rng.random() < 0.5 else text.upper()


def _reword(rng: np.random.Generator, column: str, text: str, strength: float, vocabulary: Sequence[str]) -> str:
    if not text or strength <= 0:
        return text
    if _PRICE.search(column) and re.fullmatch(r"\d+(\.\d+)?", text):
        return f"{float(text) * (1 + 0.1 * strength * rng.normal()):.2f}" if rng.random() < strength else text
    text = _MEASURE.sub(lambda found: _remeasure(rng, found, strength), text)
    words = _drop(rng, [chunk.group() for chunk in _CHUNK.finditer(text)], strength)
    words = [_rewrite_word(rng, word, strength) for word in words]
    if len(words) > 2 and rng.random() < strength:
        i = int(rng.integers(1, len(words)))
        words = words[i:] + words[:i] if rng.random() < 0.3 else _swap(words, i)
    if len(vocabulary) and rng.random() < strength:
        words.insert(int(rng.integers(len(words) + 1)), str(vocabulary[int(rng.integers(len(vocabulary)))]))
    return " ".join(words)


def _drop(rng: np.random.Generator, words: list[str], strength: float) -> list[str]:
    facts = [_has_digit(word) for word in words]
    spare, kept = sum(facts) // 2, []
    for word, fact, draw in zip(words, facts, rng.random(len(words)).tolist(), strict=True):
        gone = draw < (0.15 if fact else 0.35) * strength and (not fact or spare > 0)
        spare -= fact and gone
        if not gone:
            kept.append(word)
    return kept or words


def _rewrite_word(rng: np.random.Generator, word: str, strength: float) -> str:
    if rng.random() >= 0.5 * strength:
        return word
    if _is_code(word):
        return reformat_code(rng, word)
    if not word.isalpha() or len(word) < 4:
        return word
    change: list[Callable[[], str]] = [
        lambda: typo(rng, word),
        lambda: word[: max(3, len(word) // 2)],
        lambda: word[0] + re.sub("[aeiou]", "", word[1:]),
        lambda: word.upper() if word.islower() else word.lower(),
    ]
    return change[int(rng.integers(len(change)))]()


def _remeasure(rng: np.random.Generator, found: re.Match[str], strength: float) -> str:
    if rng.random() >= strength:
        return found.group()
    unit = (found["unit"] or found["close"]).lower()
    names = next((names for names in _SPELLINGS if unit in names), (unit,))
    number = found["number"]
    if names[0] in _CONVERSIONS and rng.random() < 0.4:
        other, factor = _CONVERSIONS[names[0]]
        number, names = f"{float(number) * factor:.1f}".removesuffix(".0"), (other,)
    name = str(rng.choice(names))
    return number + name if name == '"' or rng.random() < 0.4 else f"{number} {name}"


def _swap(words: list[str], i: int) -> list[str]:
    return [*words[: i - 1], words[i], words[i - 1], *words[i + 1 :]]


def _has_digit(word: str) -> bool:
    return _DIGIT.search(word) is not None


def _is_code(word: str) -> bool:
    return _has_digit(word) and any(s.isalpha() for s in word) and len(_bare(word)) > 3 and not _MEASURE.match(word)


def _bare(word: str) -> str:
    return "".join(sign for sign in word.lower() if sign.isalnum())
