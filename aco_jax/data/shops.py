"""How a made-up shop words its products: its columns, its habits, and one row of its catalogue.

What tells a product from its siblings is always said, somewhere and in some wording, so that a careful
reader can decide; everything else may be missing, moved, abbreviated or misspelt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aco_jax.data.noise import reformat_code, typo
from aco_jax.data.wares import (
    COLOURS,
    COLUMNS,
    DEPARTMENTS,
    FILLERS,
    KINDS,
    PACKS,
    UNITS,
    WARRANTIES,
    Kind,
    Wordings,
)

_CONCEPTS: dict[Wordings, int] = {
    wordings: number
    for number, wordings in enumerate(
        dict.fromkeys(
            [
                *(w for kind in KINDS for w in (kind.nouns, *kind.options, *kind.features)),
                *COLOURS,
                *PACKS.values(),
                *DEPARTMENTS.values(),
                *WARRANTIES,
            ]
        )
    )
}
_TELLING = np.isin(
    np.arange(len(_CONCEPTS)),
    [_CONCEPTS[w] for group in (COLOURS, PACKS.values(), *(k.options for k in KINDS)) for w in group],
)  # the wordings of facts that tell siblings apart: even odd shops mostly use the plain one
_SLOTS = ("brand", "line", "noun", "measure", "option", "colour", "pack", "code")
_LINE_FORMS = ("{} {}", "{}-{}", "{}{}", "{} mk {}")
_OPTIONAL_COLUMNS = ("brand", "code", "department", "measure", "colour", "option", "pack", "text")


@dataclass(frozen=True)
class Product:
    """One product. `facts` are its series, measure, option, colour and pack, by number or value.

    `varying` names the facts in which it may differ from siblings of its `family`.
    """

    kind: Kind
    family: int
    brand: Wordings
    line: str
    facts: dict[str, float]
    varying: tuple[str, ...]
    needed: tuple[str, ...]  # facts by which others are found to go with it
    code: str
    price: float
    weight: float  # kg
    warranty: int


@dataclass(frozen=True)
class Style:
    """A shop's habits. `columns` fact -> column name, in order; `habit` the wording of each concept."""

    name: str
    columns: dict[str, str]
    more_columns: tuple[str, ...]  # of a later delivery
    slots: tuple[str, ...]
    habit: np.ndarray
    unit: int
    line: int
    code: int
    brand: int
    case: int
    price_factor: float
    fillers: tuple[str, ...]


def new_style(rng: np.random.Generator, name: str, number: int, difficulty: float) -> Style:
    """The habits of shop `number`: the first has many columns, the second few, the others some."""
    count = (7, 2)[number] if number < 2 else int(rng.integers(3, 7))
    chosen = rng.choice(len(_OPTIONAL_COLUMNS) - 1, count - 1, replace=False)
    facts = ["title", *(_OPTIONAL_COLUMNS[i] for i in sorted(chosen)), "text", "price"]
    names = {fact: COLUMNS[fact][int(rng.integers(4)) if number else 0] for fact in (*facts, *COLUMNS)}
    foreign = rng.random(len(_CONCEPTS)) < np.where(_TELLING, 0.1, 0.3) * difficulty
    slots = [_SLOTS[i] for i in rng.permutation(len(_SLOTS))] if number else list(_SLOTS)
    return Style(
        name=name,
        columns={fact: names[fact] for fact in facts},
        more_columns=(names["weight"], names["warranty"]),
        slots=tuple(slots),
        habit=np.where(foreign, rng.integers(0, 4, len(_CONCEPTS)), 0),
        unit=int(rng.integers(5)) if rng.random() < 0.4 * difficulty else 0,
        line=int(rng.integers(4)) if rng.random() < 0.4 * difficulty else 0,
        code=int(rng.integers(4)) if rng.random() < 0.6 * difficulty else 0,
        brand=int(rng.integers(3)) if rng.random() < difficulty else 0,
        case=int(rng.integers(3)),
        price_factor=float(rng.uniform(0.95, 1.05)),
        fillers=tuple(FILLERS[i] for i in rng.choice(len(FILLERS), 4, replace=False)),
    )


def describe(rng: np.random.Generator, product: Product, style: Style, difficulty: float) -> dict[str, str]:
    """Column -> text of one record of the product in the shop; '' where the shop does not say."""
    title: dict[str, str] = {}
    cells: dict[str, str] = dict.fromkeys(style.columns, "")
    text = _features(rng, product, style, difficulty)
    for fact, words in _facts(rng, product, style, difficulty).items():
        in_column = fact in style.columns and rng.random() >= 0.2 * difficulty
        if in_column:
            cells[fact] = words
        in_title = fact in ("line", "noun") or rng.random() < (0.5 if in_column else 0.7) * (1.0 - 0.3 * difficulty)
        if in_title:
            title[fact] = words
        elif not in_column:
            text.insert(int(rng.integers(len(text) + 1)), words)
    slots = list(style.slots)
    if rng.random() < 0.25 * difficulty:
        slots = [slots[i] for i in rng.permutation(len(slots))]
    cells["title"] = _slips(rng, " ".join(title[slot] for slot in slots if slot in title), difficulty)
    cells["text"] = _slips(rng, ", ".join(text), difficulty)
    if "department" in style.columns and rng.random() >= 0.3 * difficulty:
        cells["department"] = _say(rng, style, DEPARTMENTS[product.kind.department], difficulty)
    if rng.random() >= 0.3 * difficulty:
        price = product.price * style.price_factor * (1.0 + (0.01 + 0.05 * difficulty) * rng.normal())
        cells["price"] = f"{max(price, 0.5):.2f}"
    return {style.columns[fact]: _cased(style, fact, words) for fact, words in cells.items()}


def describe_more(rng: np.random.Generator, product: Product, style: Style, difficulty: float) -> tuple[str, str]:
    """(weight, warranty) as the shop words them: what a later delivery adds."""
    weight = measure_text("kilogram", product.weight, style.unit)
    warranty = _say(rng, style, WARRANTIES[product.warranty], difficulty)
    return (weight if rng.random() >= 0.2 else "", warranty if rng.random() >= 0.2 else "")


def measure_text(unit: str, value: float, form: int) -> str:
    """The value in one of the wordings of its unit, to three significant digits; 1.0 kg is "1 kg"."""
    pattern, factor = UNITS[unit][form]
    number = float(f"{value * factor:.3g}")
    return pattern.format(int(number) if number.is_integer() else number)


def _facts(rng: np.random.Generator, product: Product, style: Style, difficulty: float) -> dict[str, str]:
    known = product.facts
    said = {*product.varying, *product.needed, "measure", "line", "noun"}
    unit = int(rng.integers(5)) if rng.random() < 0.1 * difficulty else style.unit
    form = int(rng.integers(4)) if rng.random() < 0.1 * difficulty else style.line
    alias = int(rng.integers(3)) if rng.random() < 0.2 * difficulty else style.brand
    facts = {
        "brand": product.brand[alias],
        "line": _LINE_FORMS[form].format(product.line, int(known["series"])),
        "noun": _say(rng, style, product.kind.nouns, difficulty),
        "measure": measure_text(product.kind.unit, known["measure"], unit),
        "option": _say(rng, style, product.kind.options[int(known["option"])], difficulty),
        "colour": _say(rng, style, COLOURS[int(known["colour"])], difficulty),
        "pack": _say(rng, style, PACKS[int(known["pack"])], difficulty) if "pack" in said else "",
    }
    kept = {f: text for f, text in facts.items() if text and (f in said or rng.random() >= 0.05 + 0.15 * difficulty)}
    if rng.random() < 0.95 - 0.15 * difficulty:
        kept["code"] = _code(rng, product.code, style, difficulty)
    return kept


def _features(rng: np.random.Generator, product: Product, style: Style, difficulty: float) -> list[str]:
    said = [_say(rng, style, f, difficulty) for f in product.kind.features if rng.random() < 0.9 - 0.3 * difficulty]
    said += [filler for filler in style.fillers if rng.random() < 0.05 + 0.2 * difficulty]
    return [said[i] for i in rng.permutation(len(said))]


def _say(rng: np.random.Generator, style: Style, wordings: Wordings, difficulty: float) -> str:
    free = rng.random() < 0.08 * difficulty
    return wordings[int(rng.integers(len(wordings))) if free else int(style.habit[_CONCEPTS[wordings]])]


def _code(rng: np.random.Generator, code: str, style: Style, difficulty: float) -> str:
    if rng.random() < 0.2 * difficulty:
        return reformat_code(rng, code)
    return (code, code.replace("-", ""), code.lower(), code.replace("-", " "))[style.code]


def _slips(rng: np.random.Generator, text: str, difficulty: float) -> str:
    words = text.split(" ")
    slips = rng.random(len(words)) < 0.03 * difficulty
    return " ".join(typo(rng, word) if slip else word for word, slip in zip(words, slips, strict=True))


def _cased(style: Style, fact: str, words: str) -> str:
    if fact not in ("title", "brand") or style.case == 0:
        return words
    return words.upper() if style.case == 1 else words.title()
