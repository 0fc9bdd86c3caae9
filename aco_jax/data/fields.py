"""What the columns of different tables have in common: their kinds, the title, and which align."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from aco_jax.data import times
from aco_jax.data.records import Dataset
from aco_jax.data.wording import plain

Kind = Literal["text", "amount", "link", "duration", "date"]
Groups = list[tuple[str | None, ...]]
ALIGNED = 0.4  # least cosine of two columns' values before differently named columns are one field
WORD = re.compile(r"\w+")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
WHOLE = re.compile(r"\d+(?:\.\d+){2,}")  # more points than a fraction has: 91.927.116
GROUPED = re.compile(r"(?<=\d)[\s'\u2019](?=\d{3}(?!\d))")  # parts thousands, as in 1 299,00 and 1'299.00
# With two decimals, standing alone; 1,299.00 and 1.299,00.
PRICE = re.compile(r"(?<![\w.,])(?:\d+(?:,\d{3})*\.\d\d|\d+(?:\.\d{3})*,\d\d)(?![\w.,])")
_MONEY = (
    r"(?:(?:us|ca|au|nt|hk|r)?\$|[€£¥￥₹₽₩₺₴₪]|usd|euros?|eur|gbp|chf|fr|cad|aud|jpy|yen|cny|rmb|元|円|원|krw|rub|\u0440\u0443\u0431|\u0440|"
    r"inr|rs|sek|nok|dkk|kr|pln|zł|czk|kč|huf|try|tl|brl|mxn|uah|грн)\.?"
)
MONEY = re.compile(_MONEY)
AMOUNT = re.compile(rf"(?=\D*\d)(?:{_MONEY}|[^\w\s])?\s?\d*(?:[.,]\d{{2,3}})*(?:[.,]\d*)?\s?(?:{_MONEY}|[^\w\s])?")
GRAMS = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3)).build_analyzer()
AS_A_WHOLE = 4  # grams that a number counts for in a column's profile, beside those of its digits
NAMING = 0.4  # least share of different values, of all records, of a field that names them
STRAY = 0.3  # least share of each table's records that name one price before prices are sought in the text
SAID, SAYING = 0.4, 0.25  # least shares, of a part of the name: of its values said in titles, of titles that say one
PHRASE = 4  # most words of such a value
SAMPLE = 5000  # cells of a column that are looked at for that


@dataclass(frozen=True)
class Field:
    """One attribute across tables: `names[t]` is its column in table t (None: the table lacks it)."""

    names: tuple[str | None, ...]
    kind: Kind
    fill: float  # share of records that have it
    distinct: float  # share of different values among them
    bare: tuple[float, ...] = ()  # of a duration, by table: seconds of a number alone
    day_first: tuple[bool, ...] = ()  # of a date, by table: whether a numbered one begins with the day


@dataclass(frozen=True)
class Fields:
    """All fields, the title first, then as the tables order them."""

    fields: tuple[Field, ...]
    stray: bool = False  # no column has amounts, but the records' texts have
    naming: tuple[Field, ...] = ()  # whose values together name a record: the title first; none tells most apart: none

    @property
    def compared(self) -> tuple[Field, ...]:
        """Those that are compared one by one: texts, durations and dates; what names a record once, as the first."""
        parts = self.naming[1:]
        return tuple(field for field in self.fields if field.kind not in ("amount", "link") and field not in parts)

    @property
    def worded(self) -> bool:
        """Whether a column has words."""
        return any(field.kind == "text" for field in self.fields)

    @property
    def amounts(self) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.kind == "amount")

    @property
    def amount_count(self) -> int:
        """Amounts of a record."""
        return 1 if self.stray else len(self.amounts)


def fit(dataset: Dataset) -> Fields:
    """Aligns columns by name, then what is left by value overlap, and puts the title first."""
    values = _values(dataset)
    fields = [_field(group, values) for group in _align(values)]
    texts = [field for field in fields if field.kind == "text"]
    best = max((field.fill * field.distinct for field in texts), default=0.0)
    if texts:
        title = next(field for field in texts if field.fill * field.distinct >= best - 0.15)
        fields.remove(title)
        fields.insert(0, title)
    stray = all(field.kind != "amount" for field in fields) and _stray(dataset)
    naming = [field for field in fields if field.kind == "text" and _in_names(field, fields[0], values)]
    return Fields(tuple(fields), stray, tuple(naming) if best >= NAMING else ())


def told(fields: Fields, tables: Sequence[str]) -> list[dict[str, Any]]:
    """For people: of each field its column in each of the `tables` that has one, what it is read as, and whether it
    names records."""
    return [
        {
            "columns": {table: name for table, name in zip(tables, field.names, strict=True) if name is not None},
            "kind": field.kind,
            "names records": field in fields.naming,
        }
        for field in fields.fields
    ]


def align(dataset: Dataset) -> Groups:
    """The columns of the tables that are one field: of each its column in each table, None where that has none."""
    return _align(_values(dataset))


def value(field: Field, table: int, row: Mapping[str, str]) -> str:
    """The field's cell in a row of `table`, '' where missing; a row may lack or add columns."""
    name = field.names[table] if table < len(field.names) else None
    return row.get(name, "") if name is not None else ""


def name(fields: Fields, table: int, row: Mapping[str, str]) -> str:
    """All that names a row of `table`, '' where nothing does."""
    cells = [value(field, table, row) for field in fields.naming]
    return " ".join(cell for cell in cells if cell)


def place(field: Field, table: int, row: Mapping[str, str]) -> float:
    """Where a duration or date of a row lies, in the units of `times.rows`; NaN where it cannot be read."""
    text = value(field, table, row)
    if field.kind == "date":
        return times.day(text, bool(text) and field.day_first[table]) / times.DAYS
    return math.log(times.duration(text, field.bare[table] if text else math.nan)) / times.RELATIVE


def amount(text: str) -> float:
    """The first number of a cell such as "$1,299.00" or "1.299,00 €"; NaN where there is none.

    Of a point and a comma the later parts the decimals. Alone, either does where there are not three digits behind it,
    and a point does with three digits, too, where no currency is named: no price has three decimals.
    """
    found = NUMBER.search(GROUPED.sub("", text))
    if found is None:
        return float("nan")
    digits = found.group()
    if "," in digits and (digits.rfind(",") > digits.rfind(".") >= 0 or re.fullmatch(r"\d+,(?!\d{3}$)\d+", digits)):
        digits = digits.translate({ord("."): ",", ord(","): "."})
    digits = digits.replace(",", "")
    if re.fullmatch(r"\d{1,3}(\.\d{3})+", digits) and (digits.count(".") > 1 or MONEY.search(text.lower())):
        digits = digits.replace(".", "")
    return float(digits) if digits.count(".") <= 1 else float("nan")


def amounts(fields: Fields, table: int, row: Mapping[str, str], text: str) -> list[float]:
    """The amounts [`amount_count`] of a row with this text, NaN where missing."""
    if fields.stray:
        return [price_within(text)]
    return [amount(value(field, table, row)) for field in fields.amounts]


def price_within(text: str) -> float:
    """The price that a text names, NaN where it names none or several."""
    found = set(PRICE.findall(text))
    return amount(found.pop()) if len(found) == 1 else float("nan")


def _in_names(field: Field, title: Field, values: Sequence[Mapping[str, Sequence[str]]]) -> bool:
    """Whether a field is the title, or what the titles of another table often say, as a maker before the product."""
    if field is title:
        return True
    for table, name in enumerate(field.names):
        others = [_some(values[t][n], SAMPLE) for t, n in enumerate(title.names) if t != table and n is not None]
        words = [_words(cell) for cell in _some(values[table][name], SAMPLE)] if name is not None else []
        cells = [" ".join(cell) for cell in words if not "".join(cell).isdigit()]
        titles = [_phrases(cell) for column in others for cell in column]
        if not cells or not titles:
            continue
        known = frozenset(cells)
        saying = [not known.isdisjoint(phrases) for phrases in titles]
        every = frozenset().union(*titles)
        if np.mean([cell in every for cell in cells]) >= SAID and np.mean(saying) >= SAYING:
            return True
    return False


def _phrases(text: str) -> frozenset[str]:
    """All runs of at most PHRASE words."""
    words = _words(text)
    return frozenset(
        " ".join(words[first : first + count]) for first in range(len(words)) for count in range(1, PHRASE + 1)
    )


def _words(text: str) -> list[str]:
    return WORD.findall(plain(text))


def _stray(dataset: Dataset) -> bool:
    """Whether prices stand in columns of other things, which no column of prices takes them from."""
    texts = [plain(dataset.text(record)) for record in range(dataset.size)]
    named = np.array([np.isfinite(price_within(text)) for text in texts])
    return all(named[dataset.table_of == table].mean() >= STRAY for table in range(len(dataset.tables)))


def _values(dataset: Dataset) -> list[dict[str, list[str]]]:
    return [
        {name: [str(cell) for cell in table.cells[:, c]] for c, name in enumerate(table.columns)}
        for table in dataset.tables
    ]


def _align(values: Sequence[Mapping[str, Sequence[str]]]) -> Groups:
    names = list(dict.fromkeys(name for table in values for name in table))
    groups: list[list[str | None]] = [[name if name in table else None for table in values] for name in names]
    profiles = [_profile(group, values) for group in groups]
    kinds = [_kind([values[t][n] for t, n in enumerate(group) if n is not None]) for group in groups]
    while True:
        best, pair = 0.0, None
        for i in range(len(groups)):
            for j in range(i + 1, len(groups)):
                apart = all(a is None or b is None for a, b in zip(groups[i], groups[j], strict=True))
                if apart and kinds[i] == kinds[j]:
                    overlap = float(profiles[i] @ profiles[j])
                    # "2h 05m" and "125 min" look little alike.
                    if overlap > best and (overlap > ALIGNED or kinds[i] == "duration"):
                        best, pair = overlap, (i, j)
        if pair is None:
            return [tuple(group) for group in groups]
        i, j = pair
        groups[i] = [a if a is not None else b for a, b in zip(groups[i], groups[j], strict=True)]
        profiles[i] = _profile(groups[i], values)
        for kept in (groups, profiles, kinds):
            del kept[j]


def _profile(group: Sequence[str | None], values: Sequence[Mapping[str, Sequence[str]]]) -> np.ndarray:
    """What a column's values look like: unit-length counts of hashed `_grams`."""
    hashing = HashingVectorizer(analyzer=_grams, n_features=2**14, norm="l2")
    texts = [text for t, name in enumerate(group) if name is not None for text in _some(values[t][name])]
    total = np.abs(np.asarray(hashing.transform(texts).sum(axis=0)).ravel()) if texts else np.zeros(2**14)
    return total / max(float(np.linalg.norm(total)), 1e-9)


def _grams(text: str) -> list[str]:
    """A cell's character 1- to 3-grams, but the space around words, which all have; of digits alone the whole, too.

    All numbers have the same digits: which of them are the same attribute is told by which stand in both columns.
    """
    grams = [gram for gram in GRAMS(text) if not gram.isspace()]
    return grams + AS_A_WHOLE * [f"={text.strip()}="] if text.strip().isdigit() else grams


def _some(cells: Sequence[str], limit: int = 1000) -> list[str]:
    filled = [text.lower() for text in cells if text]
    return filled[:: max(1, len(filled) // limit)]


def _field(group: tuple[str | None, ...], values: Sequence[Mapping[str, Sequence[str]]]) -> Field:
    columns = [values[t][name] for t, name in enumerate(group) if name is not None]
    total = sum(len(next(iter(table.values()))) for table in values)
    filled = [text for column in columns for text in column if text]
    distinct = min((_distinct(column) for column in columns), default=0.0)
    kind = _kind(columns)
    known = [values[t][name] if name is not None else [] for t, name in enumerate(group)]
    bare = tuple(times.bare(known)) if kind == "duration" else ()
    day_first = tuple(map(times.day_first, known)) if kind == "date" else ()
    return Field(group, kind, len(filled) / max(total, 1), distinct, bare, day_first)


def _distinct(column: Sequence[str]) -> float:
    filled = [text for text in column if text]
    return len(set(filled)) / max(len(filled), 1)


def _kind(columns: Sequence[Sequence[str]]) -> Kind:
    filled = [text.strip() for column in columns for text in column if text]
    if not filled:
        return "text"
    if np.mean([text.lower().startswith(("http://", "https://", "www.")) for text in filled]) > 0.8:
        return "link"
    if timed := times.kind(columns):
        return timed
    joined = [GROUPED.sub("", text.lower()) for text in filled]
    if np.mean([AMOUNT.fullmatch(text) is not None for text in joined]) < 0.8:
        return "text"
    decimals = np.mean([re.search(r"[.,]\d\d?(?!\d)", WHOLE.sub("", text)) is not None for text in joined])
    money = np.mean([MONEY.search(text) is not None for text in joined])
    # Few different whole numbers are years, sizes or classes: they agree or they do not. No price has three decimals.
    return "amount" if decimals > 0.2 or money > 0.5 else "text"
