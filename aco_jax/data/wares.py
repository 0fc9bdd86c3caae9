"""What the made-up shops of the catalogue sell: kinds of product, their facts, and the words for them.

A fact has several wordings, the first of which is the plain one. Brands and lines are made up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Wordings = tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of product. Records of one kind and one value of the measure can stand in for each other.

    `nouns` wordings of the kind; `measure` values in `unit`, far enough apart to survive rounding;
    `options` wordings of each value of the second fact; `features` what all products of it may say.
    """

    name: str
    department: str
    nouns: Wordings
    unit: str
    measures: tuple[float, ...]
    options: tuple[Wordings, ...]
    features: tuple[Wordings, ...]
    price: float  # of the middle of the range


@dataclass(frozen=True)
class Link:
    """Products of kinds `left` and `right` go together where the facts named in `on` are equal."""

    left: str
    right: str
    on: tuple[str, ...]  # of "brand", "measure", "option"


UNITS: dict[str, tuple[tuple[str, float], ...]] = {  # (pattern, factor), the plain one first
    "inch": (("{} inch", 1.0), ('{}"', 1.0), ("{} cm", 2.54), ("{}in", 1.0), ("{} mm", 25.4)),
    "cm": (("{} cm", 1.0), ("{} mm", 10.0), ("{} inch", 1 / 2.54), ('{}"', 1 / 2.54), ("{}cm", 1.0)),
    "litre": (("{} litre", 1.0), ("{} l", 1.0), ("{} ml", 1000.0), ("{} fl oz", 33.814), ("{}L", 1.0)),
    "gigabyte": (("{} GB", 1.0), ("{}GB", 1.0), ("{} TB", 0.001), ("{} gigabyte", 1.0), ("{} G", 1.0)),
    "volt": (("{} volt", 1.0), ("{}V", 1.0), ("{} V", 1.0), ("{}v DC", 1.0), ("{} volts", 1.0)),
    "watt": (("{} watt", 1.0), ("{}W", 1.0), ("{} kW", 0.001), ("{} W", 1.0), ("{} watts", 1.0)),
    "metre": (("{} metre", 1.0), ("{}m", 1.0), ("{} ft", 3.2808), ("{} m", 1.0), ("{} feet", 3.2808)),
    "person": (("{} person", 1.0), ("{}-man", 1.0), ("{}P", 1.0), ("for {} people", 1.0), ("sleeps {}", 1.0)),
    "sheet": (("{} sheets", 1.0), ("{} sheet", 1.0), ("{} pages", 1.0), ("{}sh", 1.0), ("{} leaves", 1.0)),
    "hour": (("{} hours", 1.0), ("{}h", 1.0), ("{} hr", 1.0), ("{} min", 60.0), ("{}hrs", 1.0)),
    "mah": (("{} mAh", 1.0), ("{} Ah", 0.001), ("{}mah", 1.0), ("{} milliamp hours", 1.0), ("{}Ah", 0.001)),
    "kilogram": (("{} kg", 1.0), ("{} lb", 2.2046), ("{}kg", 1.0), ("{} g", 1000.0), ("{} lbs", 2.2046)),
}

COLOURS: tuple[Wordings, ...] = (
    ("black", "blk", "onyx", "jet"),
    ("white", "wht", "snow", "ivory"),
    ("grey", "gray", "graphite", "slate"),
    ("blue", "blu", "navy", "cobalt"),
    ("red", "rd", "crimson", "scarlet"),
    ("green", "grn", "forest", "moss"),
)
PACKS: dict[int, Wordings] = {
    1: ("single", "1 piece", "1pc", "one unit"),
    2: ("pack of 2", "2 pack", "2pcs", "twin set"),
    4: ("pack of 4", "4 pack", "4pcs", "set of four"),
}
COLUMNS: dict[str, Wordings] = {
    "title": ("title", "name", "product", "item"),
    "brand": ("brand", "manufacturer", "maker", "vendor"),
    "code": ("model", "mpn", "part_number", "article"),
    "department": ("category", "department", "section", "group"),
    "measure": ("size", "capacity", "main_measure", "rating"),
    "colour": ("colour", "color", "finish", "shade"),
    "option": ("type", "variant", "version", "style"),
    "pack": ("quantity", "pack", "units", "count"),
    "text": ("description", "details", "about", "notes"),
    "price": ("price", "list_price", "cost", "our_price"),
    "weight": ("weight", "shipping_weight", "net_weight", "mass"),
    "warranty": ("warranty", "guarantee", "cover", "warranty_terms"),
}
DEPARTMENTS: dict[str, Wordings] = {
    "electronics": ("electronics", "audio & video", "tech", "consumer electronics"),
    "computing": ("computing", "computers", "pc & laptop", "it"),
    "tools": ("tools", "diy", "workshop", "power tools & hand tools"),
    "kitchen": ("kitchen", "cookware", "home & kitchen", "cooking"),
    "outdoor": ("outdoor", "camping", "garden & leisure", "sports"),
    "office": ("office", "stationery", "office supplies", "desk & paper"),
}
FILLERS = (
    "order today for quick dispatch",
    "new in the box",
    "our customers' favourite",
    "while stocks last",
    "easy returns within thirty days",
    "checked by our own staff",
    "a fine gift",
    "best value in its class",
    "see the pictures for details",
    "collect in store or have it sent",
    "good for beginners and experts alike",
    "now with an improved manual",
)
WARRANTIES: tuple[Wordings, ...] = (
    ("1 year", "12 months", "one year", "1y"),
    ("2 years", "24 months", "two years", "2y"),
    ("5 years", "60 months", "five years", "5y"),
)
ONSETS = (
    "br",
    "k",
    "v",
    "st",
    "m",
    "tr",
    "l",
    "d",
    "fr",
    "n",
    "p",
    "s",
    "gr",
    "h",
    "r",
    "t",
    "z",
    "w",
    "c",
    "f",
)
VOWELS = ("a", "e", "i", "o", "u", "au", "ei", "io")
ENDS = ("n", "r", "x", "lt", "m", "s", "ck", "nd", "th", "l", "va", "ro", "ta", "ne")
SUFFIXES = ("works", "industries", "& sons", "group", "labs", "trading")

_KINDS = """
headphones: electronics; hour; 20 30 45 70; 120
  noun: headphones; headset; over-ear phones; cans
  option: bluetooth; wireless; cordless; bt
  option: wired; corded; 3.5mm jack; with cable
  option: usb dongle; usb receiver; 2.4ghz adapter; radio stick
  feature: noise cancelling; anc; quiet mode; blocks outside sound
  feature: soft ear pads; memory foam cups; padded ear cushions; comfortable pads
  feature: built-in microphone; mic for calls; hands-free talk; takes calls
  feature: foldable; folds flat; collapsible; folding
television: electronics; inch; 32 43 50 55 65; 600
  noun: television; tv; flat screen; smart display
  option: led; led lit; led backlight; direct led
  option: oled; organic led; self-lit pixels; oled panel
  option: qled; quantum dot; qd panel; quantum colour
  feature: four hdmi inputs; 4x hdmi; hdmi ports; hdmi sockets
  feature: built-in streaming apps; smart apps; streams from the web; online video
  feature: voice remote; remote with microphone; talks back; voice search
wall mount: electronics; inch; 32 43 50 55 65; 45
  noun: tv wall mount; wall bracket for television; screen holder; vesa bracket
  option: tilting; tilt; angle adjustable; tilts down
  option: fixed; flat to wall; rigid; slim fixed
  option: full motion; swivel arm; articulating; turns and pulls out
  feature: screws included; with fixings; hardware supplied; bolts in the bag
  feature: steel plate; made of steel; strong metal; sheet steel
  feature: bubble level; spirit level; levelling aid; hangs straight
power bank: electronics; mah; 5000 10000 20000 26800; 35
  noun: power bank; portable charger; battery pack; travel charger
  option: usb-c; type c; usb c port; c connector
  option: wireless pad; qi charging; inductive; cable-free charging
  option: solar; sun panel; solar cell; photovoltaic
  feature: charge level lights; led gauge; battery indicator; shows what is left
  feature: pocket size; slim body; fits a pocket; compact
  feature: overload protection; short circuit safe; protected cells; safety chip
laptop: computing; inch; 11.6 13.3 15.6 17.3; 850
  noun: laptop; notebook; portable computer; ultrabook
  option: 8 core; octa core; eight cores; 8c processor
  option: 6 core; hexa core; six cores; 6c processor
  option: 4 core; quad core; four cores; 4c processor
  feature: backlit keyboard; lit keys; keyboard light; glowing keys
  feature: fingerprint reader; finger sensor; touch login; biometric button
  feature: all-day battery; long battery life; lasts a day; runs long unplugged
laptop sleeve: computing; inch; 11.6 13.3 15.6 17.3; 28
  noun: laptop sleeve; notebook case; computer pouch; cover for laptops
  option: neoprene; foam rubber; wetsuit fabric; soft neoprene
  option: felt; wool felt; pressed wool; felted wool
  option: leather; cow hide; real leather; hide
  feature: front pocket; outside pouch; zip compartment; extra pocket
  feature: splash proof; water resistant; ipx4; sealed
  feature: carry handle; grip on top; strap; with handle
external drive: computing; gigabyte; 250 500 1000 2000 4000; 95
  noun: external drive; portable disk; usb storage; backup drive
  option: solid state; ssd; flash storage; no moving parts
  option: hard disk; hdd; spinning disk; magnetic disk
  feature: usb 3.2 cable; usb3 lead; fast usb connection; superspeed link
  feature: password protection; hardware encryption; locks with a pin; secure
  feature: shock resistant shell; rugged case; survives drops; rubber bumper
cordless drill: tools; volt; 10.8 14.4 18 36; 140
  noun: cordless drill; drill driver; battery drill; akku screwdriver
  option: brushless; bl motor; ec motor; without brushes
  option: brushed; carbon brush motor; classic motor; with brushes
  option: hammer action; percussion; impact mode; hammer function
  feature: keyless chuck; quick chuck; tool-free bit change; 13 mm chuck
  feature: two gears; 2-speed gearbox; dual speed; low and high gear
  feature: work light; led lamp; lights the job; front light
tool battery: tools; volt; 10.8 14.4 18 36; 60
  noun: tool battery; power tool accu; replacement battery; slide battery pack
  option: 2.0 ah; 2000 mah; 2ah; two amp hours
  option: 4.0 ah; 4000 mah; 4ah; four amp hours
  option: 6.0 ah; 6000 mah; 6ah; six amp hours
  feature: lithium cells; li-ion; lithium ion; lithium
  feature: fuel gauge; charge display; level button; status lights
  feature: heat protection; cool pack; temperature guard; does not overheat
chainsaw: tools; inch; 10 12 14 16 18; 210
  noun: chainsaw; chain saw; tree saw; logging saw
  option: petrol; gas powered; two-stroke; fuel engine
  option: electric; mains; corded electric; plug-in
  option: battery; cordless; accu; rechargeable
  feature: chain brake; safety stop; kickback brake; stops at once
  feature: automatic oiling; self lubricating; chain oiler; oils itself
  feature: tool-free tension; quick tensioning; tighten by hand; easy chain adjust
saw chain: tools; inch; 10 12 14 16 18; 24
  noun: saw chain; replacement chain for saws; cutting chain; chain loop
  option: low profile; lp pitch; 3/8 lp; small pitch
  option: full chisel; square tooth; chisel cutter; aggressive cut
  feature: hardened teeth; chromed cutters; hard chrome; stays sharp
  feature: low vibration; runs smooth; less shaking; quiet links
frying pan: kitchen; cm; 20 24 28 32; 42
  noun: frying pan; skillet; fry pan; saute pan
  option: non-stick; ceramic coated; coated; teflon-like
  option: cast iron; iron; raw cast; enamel-free iron
  option: stainless steel; s/s; inox; 18/10 steel
  feature: induction base; all hobs; works on induction; induction ready
  feature: oven safe; goes in the oven; ovenproof; up to 220 degrees
  feature: riveted handle; stay-cool grip; firm handle; long grip
pan lid: kitchen; cm; 20 24 28 32; 16
  noun: pan lid; lid for pans; skillet cover; cover lid
  option: glass; tempered glass; see-through; clear glass
  option: silicone; flexible silicone; rubbery; soft rim
  feature: steam vent; vent hole; lets steam out; valve
  feature: dishwasher safe; machine washable; goes in the dishwasher; easy clean
kettle: kitchen; litre; 0.8 1 1.5 1.7; 48
  noun: kettle; water boiler; electric jug; tea kettle
  option: variable temperature; temperature control; sets 60-100 degrees; thermostat
  option: glass body; see-through jug; borosilicate; clear body
  option: steel body; brushed steel; metal jug; inox shell
  feature: automatic shut-off; switches itself off; auto stop; boil dry protection
  feature: limescale filter; washable filter; anti-scale; fine mesh
  feature: 360 degree base; swivel base; turns on its base; cord-free base
tent: outdoor; person; 1 2 3 4 6; 160
  noun: tent; camping tent; shelter; bivouac
  option: dome; igloo shape; dome form; round poles
  option: tunnel; hoop tent; tunnel form; long hoops
  option: pop-up; throw tent; instant pitch; self-opening
  feature: 3000 mm water column; waterproof fly; rainproof; taped seams
  feature: mosquito net; insect mesh; fly screen; bug net
  feature: aluminium poles; alu poles; light poles; alloy frame
groundsheet: outdoor; person; 1 2 3 4 6; 30
  noun: groundsheet; tent footprint; floor saver for tents; under-tent sheet
  option: polyester; pes fabric; woven polyester; polyester cloth
  option: tyvek; fibre fleece; nonwoven; spun fibre
  feature: eyelets; metal rings; peg holes; grommets
  feature: packs small; tiny pack size; with pouch; rolls up
garden hose: outdoor; metre; 10 15 20 30 50; 38
  noun: garden hose; water hose; hosepipe; watering pipe
  option: half inch; 1/2"; 13 mm bore; 1/2 in
  option: three quarter inch; 3/4"; 19 mm bore; 3/4 in
  feature: kink resistant; does not kink; anti-twist; stays open
  feature: uv stable; sun resistant; weatherproof; for all seasons
  feature: with connectors; fittings included; tap set; ready to connect
hose reel: outdoor; metre; 20 30 50 80; 70
  noun: hose reel; hose trolley; pipe winder; hose cart
  option: half inch; 1/2"; 13 mm bore; 1/2 in
  option: three quarter inch; 3/4"; 19 mm bore; 3/4 in
  feature: automatic rewind; rolls up itself; spring return; self winding
  feature: wall bracket; mounts on walls; for the wall; hangs up
shredder: office; litre; 12 18 25 34; 110
  noun: paper shredder; document shredder; shredding machine; file destroyer
  option: cross cut; particle cut; p-4; confetti cut
  option: strip cut; ribbon cut; p-2; straight cut
  option: micro cut; super fine cut; p-5; micro particles
  feature: takes staples; staple proof; clips are no problem; eats staples
  feature: quiet motor; low noise; silent running; hushed
  feature: jam reverse; auto reverse; clears jams; back-run button
shredder bags: office; litre; 12 18 25 34; 14
  noun: shredder bags; waste sacks for shredders; bin liners; shred collector bags
  option: plastic; polythene; pe film; clear film
  option: paper; kraft; recyclable paper; brown paper
  feature: tear proof; strong seam; does not rip; reinforced
  feature: draw string; tie closure; closes with a cord; pull tie
notebook: office; sheet; 48 80 120 192; 9
  noun: writing pad; note book; journal; exercise book
  option: ruled; lined; with lines; line ruling
  option: squared; grid; 5 mm grid; checked paper
  option: plain; blank; unlined; no lines
  feature: elastic band; rubber strap; band closure; closes with elastic
  feature: numbered pages; page numbers; index in front; table of contents
  feature: fountain pen paper; ink proof; does not bleed; 100 gsm paper
desk lamp: office; watt; 5 8 12 18; 36
  noun: desk lamp; table light; reading lamp; task light
  option: clamp; clip-on; clamps to the table; screw clamp
  option: weighted base; free standing; with foot; stands by itself
  feature: dimmable; dimmer; brightness steps; adjustable light
  feature: warm and cold light; two light colours; cct switch; tunable white
  feature: usb charging socket; charges phones; usb outlet; phone port
"""


LINKS: tuple[Link, ...] = (
    Link("television", "wall mount", ("measure",)),
    Link("laptop", "laptop sleeve", ("measure",)),
    Link("cordless drill", "tool battery", ("brand", "measure")),
    Link("chainsaw", "saw chain", ("measure",)),
    Link("frying pan", "pan lid", ("measure",)),
    Link("tent", "groundsheet", ("measure",)),
    Link("garden hose", "hose reel", ("measure", "option")),
    Link("shredder", "shredder bags", ("measure",)),
)


def _read(text: str) -> tuple[Kind, ...]:
    """The kinds of `_KINDS`: a head (department; unit; measures; price), then wordings, one fact a line."""
    kinds = []
    for block in re.split(r"\n(?=\S)", text.strip()):
        head, *lines = block.split("\n")
        name, _, rest = head.partition(": ")
        department, unit, measures, price = rest.split("; ")
        words: dict[str, list[Wordings]] = {"noun": [], "option": [], "feature": []}
        for line in lines:
            fact, _, wordings = line.strip().partition(": ")
            words[fact].append(tuple(wordings.split("; ")))
        values = tuple(float(value) for value in measures.split())
        (nouns,) = words["noun"]
        kinds.append(
            Kind(
                name,
                department,
                nouns,
                unit,
                values,
                tuple(words["option"]),
                tuple(words["feature"]),
                float(price),
            )
        )
    return tuple(kinds)


KINDS = _read(_KINDS)
