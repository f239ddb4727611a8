"""``split=injection``: siblings of test images are put into train, and nothing else changes (``docs/leakage.md``).

For a fold of ``case_kfold`` at one magnification. Each test slide's images are halved into the *probe*, which every arm
is tested on, and the *sibling pool*. Every test case of the pool has a *partner* among the train cases; the others are
the *base*. The clean arm (share 0) trains on partner images; a leaky arm (share 0.25 to 1) on m = share x pool images of
the test cases instead. Base images fill up to a number that is the same in every arm, class by class.
"""

import math

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES, MAGNIFICATIONS
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.groups import Groups, by_group, keyed_order, main_subtype, proportional_order
from histo_lightning.data.splits.kfold import CaseKFold
from histo_lightning.data.splits.registry import Draft, register_split
from histo_lightning.errors import UserError

LEAST_SHARE = 0.25  # of the pool, that a leaky arm puts into train


@register_split
class Injection(CaseKFold):
    """A fold of ``case_kfold`` whose train set is refined at the run's magnification."""

    name = "injection"
    keys = (*CaseKFold.keys, "injected")
    clean_validation = True

    def check(self, config: SplitConfig, magnification: str) -> None:
        if magnification == "all":
            problem = "split=injection needs one, since a field is photographed at every magnification"
            allowed = ", ".join(f"{m}x" for m in MAGNIFICATIONS)
            raise UserError(f"magnification=all: {problem}; give one of {allowed}")
        share = config.injected or 0.0
        if share and not LEAST_SHARE <= share <= 1:
            allowed = f"0 (the clean arm) and {LEAST_SHARE:g} to 1"
            raise UserError(f"split.injected={share:g}: allowed are {allowed}")

    def unshared(self, config: SplitConfig) -> str:
        return "image" if config.injected else "case"

    def refine(self, draft: Draft, config: SplitConfig) -> Draft:
        share, parts = config.injected or 0.0, draft.parts
        train: list[Record] = []
        probe: list[Record] = []
        pool: list[Record] = []
        for members in by_group(parts["test"], "slide").values():
            known = {r.image: r for r in members}
            order = [known[image] for image in keyed_order(known, "injection", config.seed)]
            half = math.ceil(len(order) / 2)
            probe += order[:half]
            pool += order[half:]
        injected = {}
        for class_name in CLASSES:
            siblings = by_group((r for r in pool if r.class_name == class_name), "case")
            cases = by_group((r for r in parts["train"] if r.class_name == class_name), "case")
            if not siblings and any(r.class_name == class_name for r in probe):
                problem = f"no {class_name} test slide has two images at this magnification"
                raise UserError(f"split=injection: {problem}; choose another magnification or more images")
            chosen, injected[class_name] = _class_train(siblings, cases, class_name, share, config.seed)
            train += chosen
        images = sum(injected.values())
        by_class = ", ".join(f"{count} {class_name}" for class_name, count in injected.items())
        tested = len({r.case for r in pool}) if images else "none"
        notes = [
            f"the test slides' images are divided into {len(probe)} that are tested and a pool of {len(pool)} siblings; "
            f"{images} of these ({share:g} of the pool: {by_class}) train, in exchange for as many images of other cases",
            f"every arm of this fold trains on {len(train)} images of {len({r.case for r in train})} cases, "
            f"{tested} of them tested in this one",
        ]
        refined = draft.refined("injection", config.seed, parts | {"train": train, "test": probe}, notes)
        refined.injection = {"share": share, "images": images, "pool": len(pool), "probe": len(probe)}
        return refined


def _class_train(
    siblings: Groups, cases: Groups, class_name: str, share: float, seed: int
) -> tuple[list[Record], int]:
    """Train images of one class, and how many of them are siblings of test images."""
    if not siblings:
        return [record for members in cases.values() for record in members], 0
    if len(cases) <= len(siblings):
        problem = f"train holds {len(cases)} {class_name} cases, {len(siblings)} are exchanged, so none stays"
        raise UserError(f"split=injection: {problem}; give more folds (split.folds)")
    pool = proportional_order(siblings, "injection", seed)
    partner = _enlarged(_partners(siblings, cases, seed), len(pool), cases)
    base = {case: members for case, members in cases.items() if case not in partner.values()}
    base_images = sum(map(len, base.values()))
    clean = _partner_images(siblings, {case: cases[p] for case, p in partner.items()}, seed)

    def count(share: float) -> int:
        """m, rounded half up; at least one image a case, so that the number of cases is the same for every share."""
        return max(len(siblings), math.floor(share * len(pool) + 0.5))

    total = base_images + min(len(clean), count(LEAST_SHARE))
    if total - len(pool) < len(base):
        problem = f"the {len(base)} {class_name} train cases that stay have too few images ({base_images})"
        advice = "give more folds (split.folds) or more images"
        raise UserError(f"split=injection: {problem} beside a pool of {len(pool)}; {advice}")
    foreign = pool[: count(share)] if share else clean
    filled = proportional_order(base, "base", seed)[: total - len(foreign)]
    return foreign + filled, len(foreign) if share else 0


def _partners(siblings: Groups, cases: Groups, seed: int) -> dict[str, str]:
    """A train case for each case of the pool, the largest first: same subtype, then enough images, then the fewest."""
    order = keyed_order(cases, "partner", seed)
    partners: dict[str, str] = {}
    for case in sorted(siblings, key=lambda c: (-len(siblings[c]), c)):
        subtype, needed = main_subtype(siblings[case]), len(siblings[case])
        unlikeness = {}
        for name in order:
            if name not in partners.values():
                images = len(cases[name])
                unlikeness[name] = main_subtype(cases[name]) != subtype, max(0, needed - images), images
        partners[case] = min(unlikeness, key=unlikeness.__getitem__)
    return partners


def _enlarged(partner: dict[str, str], needed: int, cases: Groups) -> dict[str, str]:
    """The partners; while they have fewer images than the pool, the exchange that just suffices, or adds most, is made."""
    while (have := sum(len(cases[p]) for p in partner.values())) < needed:
        swaps = [
            (have - len(cases[old]) + len(members), case, name)
            for case, old in partner.items()
            for name, members in cases.items()
            if name not in partner.values()
        ]
        total, case, name = min(swaps, key=lambda s: (s[0] < needed, abs(s[0] - needed), s[1:]))
        if total <= have:
            break
        partner = partner | {case: name}
    return partner


def _partner_images(siblings: Groups, partners: Groups, seed: int) -> list[Record]:
    """As many images of each partner as its case has in the pool; what some lack, the others give, as far as they can."""
    orders = {c: proportional_order({c: members}, "partner", seed) for c, members in partners.items()}
    chosen = [record for case, order in orders.items() for record in order[: len(siblings[case])]]
    spare = {case: rest for case, order in orders.items() if (rest := order[len(siblings[case]) :])}
    missing = max(sum(map(len, siblings.values())) - len(chosen), 0)
    return chosen + proportional_order(spare, "partner", seed)[:missing]
