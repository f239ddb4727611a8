"""What a comparison says, block by block: the answer first, then what it rests on."""

from collections.abc import Iterator, Mapping
from typing import Any

from histo_lightning.report.results_tables import (
    arm_table,
    environment_table,
    equivalence_table,
    fit_table,
    fold_choices_table,
    magnification_table,
    main_table,
    other_scores_table,
    pair_table,
    secondary_table,
    selection_table,
    spread_table,
    tuning_table,
    unfinished_table,
)
from histo_lightning.report.results_text import Block, Folded, Heading, Label, Lines, Listed, Pictures, Shell
from histo_lightning.report.results_words import (
    basis_of,
    basis_words,
    conclusions,
    design_sentence,
    family_rank,
    in_unit,
    labels_of,
    left_out,
    plan_sentences,
    runs_sentence,
    score_title,
    signed,
    size,
    unit,
    unread_sentence,
)
from histo_lightning.report.words import COVERS

Json = Mapping[str, Any]


def sections(results: Json) -> Iterator[Block]:
    """The whole report of ``comparing.compare_runs``' results."""
    yield from _header(results)
    yield from _answer(results)
    for number, world in enumerate(results["worlds"]):
        yield from _scores(results, world, number)
        yield from _comparison(results, world, number)
        yield from _details(results, world, number)
    if results.get("selection"):
        yield from _selection(results["selection"])
    yield from _trust(results)


def _header(results: Json) -> Iterator[Block]:
    yield Heading(f"Comparison: {results['factor']}, {score_title(results['score'])}", 1)
    yield Lines([design_sentence(results), runs_sentence(results)])
    for label in labels_of(results):
        yield Label(f"{label}: results with this label do not say how a network does on new cases")
    for warning in results["warnings"]:
        yield Label(f"Warning: {warning}")


def _answer(results: Json) -> Iterator[Block]:
    yield Heading("The answer")
    yield Lines(conclusions(results), "lead")
    told = [text for text in [*left_out(results), unread_sentence(results)] if text]
    main = [family for family in results["families"] if family["main"]]
    told += [family_rank(main[0])] if main else []
    if told:
        yield Lines(told)


def _selection(selection: Json) -> Iterator[Block]:
    yield Heading("Selection by validation")
    yield Lines([f"Rule: {selection['rule']}. Test scores were not looked at for it."])
    if selection["run"]:
        yield from _run_to_score(selection["run"])
        return
    yield selection_table(selection)
    if selection["warning"]:
        yield Lines([selection["warning"]])
        yield Folded("The choice fold by fold", fold_choices_table(selection))
    for choice in selection["choices"]:
        if choice.get("next"):
            yield from _run_to_score(choice["next"])


def _run_to_score(run: Json) -> Iterator[Block]:
    if run["command"]:
        yield Lines([f"Its test part is unread. Score {run['run']} next, once:"])
        yield Shell(run["command"])
    else:
        told = (
            "its test part has been read already" if run["state"] == "finished" else f"it is {run['state']}"
        )
        yield Lines([f"{run['run']}: {told}."])


def _named(name: str, number: int) -> str:
    return f"{name}-{number + 1}" if number else name


def _scores(results: Json, world: str, number: int) -> Iterator[Block]:
    cells = [cell for cell in results["cells"] if cell["world"] == world]
    score = str(results["score"])
    basis = basis_of(cells)
    yield Heading(f"Scores: {world}")
    label = next((str(cell["label"]) for cell in cells if cell["label"]), "")
    if label:
        yield Label(label)
    yield Lines([f"{score_title(score)}: {basis_words(cells)}."])
    yield main_table(cells, score)
    if basis.has_interval:
        method = next((cell["method"] for cell in cells if cell["method"]), None)
        yield Lines(
            [
                f"95 % intervals ({method}; over several seeds the means of their ends): they cover {COVERS}."
                if method
                else "There are no intervals here; the notes say why.",
                "AUROC counts pairs of one fold only; the folds' networks have scales of their own.",
            ],
            "small",
        )
    yield Pictures([_named("heat_map", number), _named("cost", number)])


def _details(results: Json, world: str, number: int) -> Iterator[Block]:
    cells = [cell for cell in results["cells"] if cell["world"] == world]
    yield Heading(f"Cost, fit and spreads: {world}")
    yield fit_table(cells)
    yield Pictures([_named("roc", number), _named("confusion", number), _named("curves", number)])
    if any(cell["value"] is not None for cell in cells):
        yield Folded("Other scores of every cell, pooled", other_scores_table(cells))
    yield Folded("Spreads and checks of every cell", spread_table(cells, str(results["score"])))


def _comparison(results: Json, world: str, number: int) -> Iterator[Block]:
    families = [family for family in results["families"] if family["world"] == world]
    refused = [
        text for refusal in results["refusals"] if refusal["world"] == world for text in refusal["reasons"]
    ]
    label = next(
        (str(cell["label"]) for cell in results["cells"] if cell["world"] == world and cell["label"]), ""
    )
    yield Heading(f"Comparison: {world}")
    if label:
        yield Label(label)
    if refused:
        yield Lines(["Not compared, because:" if not families else "Left out of comparisons:"])
        yield Listed(refused)
    for place, family in enumerate(families):
        yield from _family(family, number, first=place == 0)


def _family(family: Json, number: int, *, first: bool) -> Iterator[Block]:
    comparison = family["comparison"]
    score = str(comparison["score"])
    yield Heading(family["title"], 3)
    rests = (
        f"{comparison['cases']['benign']} benign and {comparison['cases']['malignant']} malignant cases; "
        f"{', '.join(family['replicates'])}; {', '.join(family['magnifications'])}. {in_unit(score)}, arm minus "
        "reference."
    )
    yield Lines([family_rank(family), rests, *comparison["notes"], *family["notes"]])
    yield pair_table(family)
    if number or not first:  # those of the first family are the answer, at the top
        yield Listed([str(pair["words"]) for pair in comparison["pairs"]])
    if not first:
        return
    yield Pictures([_named("forest", number)])
    if len(family["places"]) > 1:
        yield Folded("At each magnification (exploratory)", magnification_table(family))
    yield Heading("Equivalence", 3)
    yield equivalence_table(family)
    yield Heading("Secondary lines, over the folds", 3)
    yield secondary_table(family)
    friedman = comparison["friedman"]
    if friedman.get("reason"):
        yield Lines([f"No mean ranks: {friedman['reason']}."])
    else:
        yield Lines(
            [
                f"Friedman over {friedman['blocks']} folds: statistic {friedman['statistic']:.2f}, "
                f"p {friedman['p']:.3f}. Descriptive: five folds share their training cases."
            ]
        )
        yield Pictures([_named("ranks", number)])


def _trust(results: Json) -> Iterator[Block]:
    """Section 7 of the protocol: what a reader needs to trust the rest."""
    score = str(results["score"])
    yield Heading("What a reader needs to trust this")
    for plan in results["plans"]:
        yield Lines(plan_sentences(plan))
    if not results["plans"]:
        yield Lines(["No plan was written before the first job, so every comparison here is exploratory."])
    main = [family for family in results["families"] if family["main"]]
    pairs = [pair for family in results["families"] for pair in family["comparison"]["pairs"]]
    told = [
        f"Family: {main[0]['title']}; score {score_title(score)}; {len(main[0]['comparison']['pairs'])} comparison(s) in "
        f"the first family, {len(pairs)} in all."
        if main
        else "Family: none could be compared."
    ]
    told.append(_selection_rule(results))
    for pair in main[0]["comparison"]["pairs"] if main else []:
        told.append(
            f"{pair['arm']} minus {pair['reference']}: {signed(pair['difference'], score)}{unit(score)}, smallest difference "
            f"that could have been detected reliably {size(pair['minimum_detectable'], score)}{unit(score)}."
        )
    read = results["test_read"]
    told.append(
        f"The test part was read {read['times']} time(s) in {results['runs']['found']} runs"
        + (f", {read['most']} times in one run." if read["most"] > 1 else ", at most once in each run.")
    )
    tuning = tuning_table(results)
    told.append(
        "Tuning: the studies below; a setting on the edge of what was searched may not be the best one."
        if tuning.rows
        else "Tuning: these folders hold no record of a hyper-parameter search; whether settings were tuned, and with which "
        "budget for each level, is not known here."
    )
    held = "; ".join(f"{key}: {', '.join(values)}" for key, values in results["held"].items())
    told += [f"Other settings that differ, held equal within a comparison: {held}."] if held else []
    yield Listed(told)
    if tuning.rows:
        yield Heading("Tuning budget", 3)
        yield tuning
    if main:
        yield Heading("Spreads apart: training runs, folds, cases", 3)
        yield arm_table(main[0])
    if results["unfinished"]:
        yield Heading("Failed, interrupted, damaged and missing runs", 3)
        yield unfinished_table(results)
    environment = environment_table(results)
    if environment.rows:
        yield Heading("The runs' environments differ", 3)
        yield environment
    if results["notes"]:
        yield Heading("Notes", 3)
        yield Listed(results["notes"])


def _selection_rule(results: Json) -> str:
    selection = results.get("selection")
    if selection:
        return f"Selection: {selection['rule']}."
    return "Selection: none; every level that was run is in the table."
