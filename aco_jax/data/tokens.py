"""Text to token ids and back: the one door to tokenizers and transformers.

Token 0 is padding everywhere. The ids that steer the agents (tasks, relations, tables, columns, levels,
states, actions) form one block: the first ids of a tokenizer trained here, the last of a pretrained one.
They are never written as text, so no record can spell one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from aco_jax.data.files import InputError

PAD = 0
_BLOCKS = {"relation": 8, "table": 8, "column": 24, "level": 8, "state": 80, "action": 16}
_SINGLES = ("pad", "bos", "eos", "mask", "sep", "denoise", "ask", "rewrite", "read")
_PIECES = r" ?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]|\s"  # digits stand alone: 40 is one token in any code
_BYTES = 256


@dataclass(frozen=True)
class Special:
    """The ids that are no text. `first` is where the block begins; `count` its length (153)."""

    first: int
    pad: int
    bos: int
    eos: int
    mask: int
    sep: int
    denoise: int
    ask: int
    rewrite: int
    read: int
    first_relation: int
    first_table: int
    first_column: int
    first_level: int
    first_state: int
    first_action: int
    count: int

    @classmethod
    def at(cls, first: int) -> Special:
        """The block that begins at `first`; padding is 0 wherever it begins."""
        ids = {"first": first, **{name: first + i for i, name in enumerate(_SINGLES)}, "pad": PAD}
        count = len(_SINGLES)
        for name, size in _BLOCKS.items():
            ids[f"first_{name}"] = first + count
            count += size
        return cls(**ids, count=count)

    def relation(self, i: int) -> int:
        """Relation i in 0..7, 0 is "unrelated"."""
        return self._in_block("relation", i)

    def table(self, i: int) -> int:
        """Table i in 0..7."""
        return self._in_block("table", i)

    def column(self, i: int) -> int:
        """Column i, taken modulo 24."""
        return self._in_block("column", i % _BLOCKS["column"])

    def level(self, i: int) -> int:
        """Level i in 0..7."""
        return self._in_block("level", i)

    def state(self, i: int) -> int:
        """State token i in 0..79."""
        return self._in_block("state", i)

    def action(self, i: int) -> int:
        """Action i in 0..15."""
        return self._in_block("action", i)

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """Which ids are no text, padding included."""
        return (ids == PAD) | ((ids > self.first) & (ids < self.first + self.count))

    def _in_block(self, name: str, i: int) -> int:
        if not 0 <= i < _BLOCKS[name]:
            raise ValueError(f"{name} {i}: expected 0..{_BLOCKS[name] - 1}")
        return int(getattr(self, f"first_{name}")) + int(i)


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A backend's ids moved up by `offset`; where `offset` is 0 its token 0 is written as `special.first`."""

    backend: tokenizers.Tokenizer
    special: Special
    offset: int
    columns: tuple[str, ...] = ()  # column j of any table heads its cells with `special.column(j)`

    def knowing(self, columns: Iterable[str]) -> Tokenizer:
        """With columns that were not met before, after those that were: a known one keeps its token."""
        return replace(self, columns=tuple(dict.fromkeys((*self.columns, *columns))))

    @property
    def vocab_size(self) -> int:
        """V: text and specials."""
        text = self.backend.get_vocab_size() if self.offset else self.special.first
        return text + self.special.count

    def encode_lists(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without bos and eos."""
        batch = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        found = (encoding.ids for encoding in batch)
        if self.offset:
            return [[i + self.offset for i in ids] for ids in found]
        return [[i or self.special.first for i in ids] for ids in found]

    def encode(self, texts: Sequence[str], length: int) -> np.ndarray:
        """[n, length] int32, cut at `length` and padded with 0, without bos and eos."""
        return pad(self.encode_lists(texts), length)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; those that are no text are left out."""
        row = np.asarray(list(ids), dtype=np.int64)
        row = row[~self.special.contains(row)]
        row = row - self.offset if self.offset else np.where(row == self.special.first, 0, row)
        row = row[row < self.backend.get_vocab_size()]
        return str(self.backend.decode(row.tolist(), skip_special_tokens=False)).strip()

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and layout.json."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(path / "tokenizer.json"))
        layout = {f.name: getattr(self.special, f.name) for f in fields(Special)}
        content = {"offset": self.offset, "columns": self.columns, "special": layout}
        (path / "layout.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def train(texts: Iterable[str], vocab_size: int = 2048) -> Tokenizer:
    """Byte-level BPE on the texts, lower-cased, at most `vocab_size` ids with the specials.

    Letters, pairs of digits and other signs never share a token, so that a model code is a few pieces and
    the same ones however it is hyphenated. Source: Sennrich et al. 2016, Neural Machine Translation of Rare
    Words with Subword Units. Raises InputError where `vocab_size` cannot hold specials and bytes.
    """
    special = Special.at(0)
    if vocab_size < special.count + _BYTES:
        raise InputError(f"vocab_size {vocab_size}: expected at least {special.count + _BYTES}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Prepend(" "),  # the first word of a text is the same token as within one
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - special.count,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, special, special.count)


def load(folder: str | Path) -> Tokenizer:
    """What `Tokenizer.save` wrote. Raises InputError."""
    path = Path(folder)
    for name in ("tokenizer.json", "layout.json"):
        if not (path / name).is_file():
            raise InputError(f"{path / name}: no such file, expected a saved tokenizer")
    try:
        layout = json.loads((path / "layout.json").read_text(encoding="utf-8"))
        special, columns, offset = Special(**layout["special"]), tuple(layout["columns"]), int(layout["offset"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path / 'layout.json'}: {error}, expected what a saved tokenizer has") from error
    return Tokenizer(_plain(_from_file(path)), special, offset, columns)


def from_pretrained(path: str | Path) -> Tokenizer:
    """A Hugging Face tokenizer of a local folder, the specials appended after its ids. Raises InputError."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected a tokenizer's")
    backend = _plain(_from_file(folder) if (folder / "tokenizer.json").is_file() else _convert(folder))
    return _extended(backend)


def from_json(text: str) -> Tokenizer:
    """A Hugging Face tokenizer of what its tokenizer.json says, the specials appended. Raises InputError."""
    try:
        backend = _plain(tokenizers.Tokenizer.from_str(text))
    except Exception as error:  # the library raises the bare class
        raise InputError(f"{error}, expected a tokenizer.json") from None
    return _extended(backend)


def translate(rows: np.ndarray, written: Tokenizer, read: Tokenizer, length: int) -> np.ndarray:
    """Texts [n, T] in one tokenizer's ids -> [n, length] int32 in another's, each with an end where it had one.

    A text that does not fit is cut, and has no end.
    """
    texts = [written.decode(row) for row in rows]
    ended = (rows == written.special.eos).any(axis=1)
    lists = read.encode_lists(texts)
    return pad([[*ids, *[read.special.eos] * bool(end)] for ids, end in zip(lists, ended, strict=True)], length)


def encode_rows(
    tokenizer: Tokenizer,
    rows: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    table: Sequence[int] | int,
    length: int,
) -> np.ndarray:
    """[n, length] int32: the table's token, then for each column with a value its token and the value.

    Where a row is too long its longest values are cut, so that no column takes the place of another.
    """
    special = tokenizer.special
    tables = [table] * len(rows) if isinstance(table, int) else table
    present = [[j for j, column in enumerate(columns) if row.get(column)] for row in rows]
    texts = [row[columns[j]] for row, js in zip(rows, present, strict=True) for j in js]
    values = tokenizer.encode_lists(texts)
    found, at = [], 0
    for number, js in zip(tables, present, strict=True):
        parts = values[at : at + len(js)]
        at += len(js)
        limit = _fair_limit([len(part) for part in parts], length - 1 - len(js))
        row = [special.table(number)]
        for j, part in zip(js, parts, strict=True):
            row += [special.column(j), *part[:limit]]
        found.append(row)
    return pad(found, length)


def pad(ids: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """[n, length] int32, rows cut at `length` and padded with 0."""
    found = np.zeros((len(ids), length), dtype=np.int32)
    for row, source in zip(found, ids, strict=True):
        row[: len(source)] = source[:length]
    return found


def _extended(backend: tokenizers.Tokenizer) -> Tokenizer:
    return Tokenizer(backend, Special.at(max(backend.get_vocab().values()) + 1), 0)


def _fair_limit(sizes: Sequence[int], room: int) -> int:
    """The largest limit under which the sizes, each cut at it, fit into `room` (at least 0)."""
    left = room
    for done, size in enumerate(sorted(sizes)):
        if size * (len(sizes) - done) > left:
            return max(left // (len(sizes) - done), 0)
        left -= size
    return max(sizes, default=0)


def _from_file(folder: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises the bare class
        raise InputError(f"{folder / 'tokenizer.json'}: {error}, expected a saved tokenizer") from None


def _convert(folder: Path) -> tokenizers.Tokenizer:
    from transformers import AutoTokenizer  # seconds to import, and rarely needed

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    except (OSError, ValueError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: {reason}, expected the files of a tokenizer") from None


def _plain(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # a record that spells [SEP] means the letters
    return backend
