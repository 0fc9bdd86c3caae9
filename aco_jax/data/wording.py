"""Words of any script, so that texts are compared alike: one case, no accents, what needs no spaces parted.

Text in scripts that part no words becomes overlapping pairs of signs, as search engines index it (CJKBigramFilter of
Apache Lucene); where such a script meets another, a word ends: a model code inside a Chinese name stands alone.
"""

from __future__ import annotations

import re
import unicodedata

# Thai, Lao, Burmese, Khmer; kana; Han ideographs with their extensions. Korean parts its words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_ACCENT = re.compile("[\u0300-\u036f]")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "\u0131": "i", "æ": "ae", "œ": "oe", "þ": "th"})


def plain(text: str) -> str:
    """The text to compare by; ASCII in lower case. "Größe" -> "grosse", "索尼电视X90" -> "索尼 尼电 电视 x90".

    >>> plain("Café №5")
    'cafe №5'
    """
    if text.isascii():
        return text.lower()
    narrow = "".join(unicodedata.normalize("NFKC", sign) if _is_wide(sign) else sign for sign in text)
    bare = _ACCENT.sub("", unicodedata.normalize("NFD", narrow.casefold()))
    return _UNSPACED.sub(_pairs, unicodedata.normalize("NFC", bare).translate(_LETTERS))


def _is_wide(sign: str) -> bool:
    """Whether a sign is another's full-width or half-width form."""
    return "\u3000" <= sign <= "\uffef" and unicodedata.decomposition(sign).startswith(("<wide>", "<narrow>"))


def _pairs(found: re.Match[str]) -> str:
    run = found.group()
    return f" {' '.join(run[k : k + 2] for k in range(max(1, len(run) - 1)))} "
