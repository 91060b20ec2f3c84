"""A generated marketplace: titled items, users with tastes, and who had what when; none of it is real.

python -m benchmarks.marketplace FOLDER     writes interactions.csv and titles.csv

Three kinds of structure lie in it, each for what can learn it: users like a few departments and styles,
and items differ in popularity (few directions: embeddings); what was had calls for its complements, two
items of the next kinds of its department and style (too many pairs for few directions: co-occurrence);
and both at once, with noise (a ranker). The same arguments give the same world.
"""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]

# A department, and its kinds of items: each calls for the next ones, and the last for the first.
_DEPARTMENTS = {
    "camping": "tent|sleeping bag|sleeping mat|camping stove|cook set|headlamp|backpack|water filter|"
    "camping chair|cool box",
    "cycling": "road bike|bike helmet|bike lock|bike pump|bike light|saddle bag|cycling jersey|"
    "cycling gloves|repair stand|bottle cage",
    "coffee": "espresso machine|coffee grinder|tamper|milk jug|kitchen scale|pour-over dripper|"
    "paper filters|gooseneck kettle|coffee canister|espresso cups",
    "baking": "stand mixer|bread tin|proofing basket|dough scraper|rolling pin|cake tin|piping set|"
    "cooling rack|oven thermometer|pastry brush",
    "cooking": "chef's knife|cutting board|knife sharpener|frying pan|saucepan|wok|spatula|colander|"
    "spice rack|apron",
    "garden": "spade|garden fork|pruning shears|garden hose|watering can|wheelbarrow|seed tray|"
    "plant pot|gardening gloves|compost bin",
    "running": "running shoe|running sock|running shorts|running jacket|running watch|waist belt|"
    "foam roller|running cap|hydration vest|reflective band",
    "climbing": "climbing shoe|harness|chalk bag|climbing rope|belay device|carabiner|quickdraw|"
    "climbing helmet|crash pad|finger trainer",
    "swimming": "swimsuit|swim goggles|swim cap|kickboard|pull buoy|swim fins|hand paddles|bath robe|"
    "microfibre towel|mesh bag",
    "yoga": "yoga mat|yoga block|yoga strap|bolster|meditation cushion|yoga leggings|mat bag|"
    "eye pillow|yoga wheel|incense holder",
    "photography": "camera|prime lens|camera bag|tripod|memory card|lens filter|camera strap|flash|"
    "photo printer|photo album",
    "music": "acoustic guitar|guitar strap|guitar tuner|guitar strings|capo|guitar stand|music stand|"
    "metronome|guitar case|songbook",
    "drums": "snare drum|drumsticks|cymbal|drum stool|kick pedal|practice pad|drum key|stick bag|"
    "ear protectors|drum rug",
    "painting": "easel|canvas|oil paint set|paintbrush set|palette|palette knife|varnish|sketchbook|"
    "brush washer|picture frame",
    "sewing": "sewing machine|fabric scissors|thread set|needle set|pin cushion|measuring tape|"
    "seam ripper|fabric bundle|sewing box|iron",
    "knitting": "yarn|knitting needles|crochet hook|stitch markers|row counter|yarn bowl|"
    "blocking mat|yarn winder|project bag|pattern book",
    "woodwork": "hand plane|chisel set|hand saw|workbench|clamp set|mallet|marking gauge|wood glue|"
    "sandpaper set|shop apron",
    "fishing": "fishing rod|fishing reel|fishing line|lure set|tackle box|landing net|waders|"
    "fishing stool|fillet knife|bait bucket",
    "pets": "dog bed|dog lead|dog bowl|dog harness|dog brush|chew toy|dog coat|travel crate|"
    "treat pouch|car seat cover",
    "desk": "standing desk|office chair|desk lamp|monitor arm|keyboard|mouse pad|desk organizer|"
    "footrest|notebook|fountain pen",
}
_STYLES = (
    *("budget", "lightweight", "classic", "handmade", "foldable"),
    *("professional", "recycled", "colourful", "compact", "deluxe"),
)
_MAKERS = (
    *("Aldertree", "Brightwater", "Corvane", "Dunmore", "Elkridge", "Fennick", "Glasshouse"),
    *("Harrowby", "Inverlay", "Juniper & Co", "Kestrelline", "Larkhall", "Moorgate", "Nordhavn"),
    *("Oakenby", "Penrose", "Quillon", "Ravensworth", "Silverfell", "Thornbury", "Umberland"),
    *("Valecrest", "Westmarch", "Yarrowdale", "Zephyrine"),
)

_MAKERS_OF_A_DEPARTMENT = 10
_STEPS_AT_ONCE = 64
_FIRST_DAY_S, _YEAR_S = 1_735_689_600, 365 * 86_400  # From 1 January 2025.

# What a user does next: take a complement of the last item, something popular, or follow the taste.
_COMPLEMENT_SHARE, _POPULAR_SHARE = 0.7, 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Marketplace:
    """Columns of one length for interactions, sorted by user, then by time; ids count from 1."""

    users: Codes
    items: Codes
    times: Codes  # Seconds since 1970.
    titles: list[str]  # Of item 1, of item 2, ...
    departments: list[str]  # Beside them.

    def write(self, folder: Path) -> None:
        """Write interactions.csv (user, item, time) and titles.csv (item, title, department)."""
        rows = np.stack([self.users, self.items, self.times], axis=1)
        with open(folder / "interactions.csv", "w", encoding="utf-8") as file:
            file.write("user,item,time\n")
            np.savetxt(file, rows, fmt="%d", delimiter=",")
        with open(folder / "titles.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("item", "title", "department"))
            writer.writerows(
                zip(range(1, len(self.titles) + 1), self.titles, self.departments, strict=True)
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Items:
    """Where each item belongs: code -> department, kind in it, style, maker of it, and further ones."""

    department: Codes
    kind: Codes
    style: Codes
    maker: Codes

    @classmethod
    def of(cls, count: int) -> "_Items":
        rest, department = np.divmod(np.arange(count), len(_DEPARTMENTS))
        rest, kind = np.divmod(rest, 10)
        rest, style = np.divmod(rest, len(_STYLES))
        return cls(department=department, kind=kind, style=style, maker=rest)

    def complements(self) -> Codes:
        """Of each item two of its style: of the next kind, and of the one after; shape (items, 2).

        Whose make they are follows no rule that few directions could hold; some items are called for
        by many others, some by none.
        """
        count, department_count = len(self.kind), len(_DEPARTMENTS)
        maker_count = max(count // (department_count * 10 * len(_STYLES)), 1)
        mixed = np.arange(count)[:, None] * np.array([7_919, 104_729]) // 37
        maker = (self.maker[:, None] + mixed) % maker_count
        kind = (self.kind[:, None] + np.array([1, 2])) % 10
        place = (maker * len(_STYLES) + self.style[:, None]) * 10 + kind
        found = place * department_count + self.department[:, None]
        return np.where(found < count, found, np.arange(count)[:, None])

    def titles(self) -> list[str]:
        kinds = [kinds.split("|") for kinds in _DEPARTMENTS.values()]
        return [
            _title(kinds[department][kind], _STYLES[style], department, maker)
            for department, kind, style, maker in zip(
                *(each.tolist() for each in (self.department, self.kind, self.style, self.maker)),
                strict=True,
            )
        ]


def _title(kind: str, style: str, department: int, maker: int) -> str:
    edition, place = divmod(maker, _MAKERS_OF_A_DEPARTMENT)
    name = _MAKERS[(department * 3 + place) % len(_MAKERS)]
    return f"{name} {style} {kind}" + (f" mark {edition + 1}" if edition else "")


def generate(
    item_count: int = 20_000,
    user_count: int = 5_000,
    interaction_count: int = 500_000,
    *,
    seed: int = 0,
) -> Marketplace:
    """A world of `interaction_count` distinct pairs; users differ in how much they do."""
    random = np.random.default_rng(seed)
    items = _Items.of(item_count)
    activity = random.lognormal(0.0, 0.7, user_count)
    # A little more than is wanted: some pairs come twice, and a few users get no more of them.
    wanted = np.ceil(activity / activity.sum() * interaction_count * 1.02).astype(np.int64) + 2
    wanted = np.minimum(wanted, item_count // 4)
    users, taken, steps = _walk(_Tastes.draw(items, user_count, random), items, wanted, random)
    assert len(users) >= interaction_count, "too few items for so many interactions"
    kept = np.sort(random.permutation(len(users))[:interaction_count])
    times = _times(users[kept], steps[kept], user_count, random)
    return Marketplace(
        users=users[kept] + 1,
        items=taken[kept] + 1,
        times=times,
        titles=items.titles(),
        departments=[list(_DEPARTMENTS)[code] for code in items.department.tolist()],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tastes:
    """What users draw from, as cumulative shares: a department, a style, then an item of both."""

    departments: npt.NDArray[np.float64]  # Shape (users, departments).
    styles: npt.NDArray[np.float64]  # Shape (users, styles).
    cells: list[Codes]  # Items of department * styles + style, the most popular first.
    popular: Codes  # All items, the most popular first.

    @classmethod
    def draw(cls, items: _Items, user_count: int, random: np.random.Generator) -> "_Tastes":
        fashion = random.pareto(2.0, len(_DEPARTMENTS)) + 0.5
        departments = random.dirichlet(0.12 * fashion / fashion.mean(), user_count)
        styles = random.dirichlet(np.full(len(_STYLES), 0.25), user_count)
        popular = random.permutation(len(items.kind))
        cell = items.department[popular] * len(_STYLES) + items.style[popular]
        return cls(
            departments=np.cumsum(departments, axis=1),
            styles=np.cumsum(styles, axis=1),
            cells=[popular[cell == code] for code in range(len(_DEPARTMENTS) * len(_STYLES))],
            popular=popular,
        )

    def next_items(self, users: Codes, random: np.random.Generator) -> Codes:
        """One item for each of `users`, by taste."""
        department = _drawn(self.departments[users], random)
        cell = department * len(_STYLES) + _drawn(self.styles[users], random)
        sizes = np.array([len(each) for each in self.cells])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        places = _skewed(np.maximum(sizes[cell], 1), random)
        anything = self.popular[_skewed(np.full(len(users), len(self.popular)), random)]
        taken = np.concatenate(self.cells)[np.minimum(starts[cell] + places, len(self.popular) - 1)]
        is_noise = (random.random(len(users)) < _POPULAR_SHARE) | (sizes[cell] == 0)
        chosen: Codes = np.where(is_noise, anything, taken)
        return chosen


def _drawn(cumulative: npt.NDArray[np.float64], random: np.random.Generator) -> Codes:
    """A column for each row, by its cumulative shares."""
    found = (random.random(len(cumulative))[:, None] > cumulative).sum(axis=1)
    column: Codes = np.minimum(found, cumulative.shape[1] - 1)
    return column


def _skewed(sizes: Codes, random: np.random.Generator) -> Codes:
    """A place below each size; the first ones far more often, about as 1 / sqrt(place)."""
    return (random.random(len(sizes)) ** 2 * sizes).astype(np.int64)


def _walk(
    tastes: _Tastes, items: _Items, wanted: Codes, random: np.random.Generator
) -> tuple[Codes, Codes, Codes]:
    """Users, items and step numbers of distinct pairs, sorted by user, then by step."""
    complements = items.complements()
    last = tastes.next_items(np.arange(len(wanted)), random)
    pairs = np.empty(0, np.int64)
    steps = np.empty(0, np.int64)
    step = 0
    missing = np.arange(len(wanted))
    while len(missing) and step < 40 * _STEPS_AT_ONCE:
        for _ in range(_STEPS_AT_ONCE):
            called = complements[last[missing], random.integers(2, size=len(missing))]
            is_called = random.random(len(missing)) < _COMPLEMENT_SHARE
            last[missing] = np.where(is_called, called, tastes.next_items(missing, random))
            pairs = np.concatenate([pairs, missing * len(items.kind) + last[missing]])
            steps = np.concatenate([steps, np.full(len(missing), step)])
            step += 1
        pairs, first = np.unique(pairs, return_index=True)
        steps = steps[first]
        missing = np.flatnonzero(np.bincount(pairs // len(items.kind), minlength=len(wanted)) < wanted)
    users, taken = np.divmod(pairs, len(items.kind))
    order = np.lexsort((steps, users))
    users, taken, steps = users[order], taken[order], steps[order]
    place = np.arange(len(users)) - np.searchsorted(users, users)
    kept = place < wanted[users]
    return users[kept], taken[kept], steps[kept]


def _times(users: Codes, steps: Codes, user_count: int, random: np.random.Generator) -> Codes:
    """When each step was taken: users come in the first half of a year and go on at their own pace."""
    begins_s = random.integers(_YEAR_S // 2, size=user_count)
    step_count = np.zeros(user_count, np.int64)
    np.maximum.at(step_count, users, steps + 1)
    pace_s = random.uniform(0.2, 1.0, user_count) * (_YEAR_S // 2) / np.maximum(step_count, 1)
    within = random.uniform(0, 0.9, len(steps))
    times: Codes = (_FIRST_DAY_S + begins_s[users] + (steps + within) * pace_s[users]).astype(np.int64)
    return times


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    generate().write(folder)
