"""What of a concept's images and captions comes into training at all, and how often."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.core.plain_text import visible
from blockrate.dataset.copies import alike
from blockrate.dataset.findings import Finding, Looked
from blockrate.dataset.folders import images_an_epoch, inner_folders


def images_left_out(config: TrainConfig, looked: Looked) -> Iterator[Finding]:
    """Yield which images no epoch uses: in folders inside, or too many for the balancing."""
    concept = looked.concept
    at = f"concepts.{looked.index}"
    inner = [] if concept.include_subdirectories else inner_folders(concept)
    if inner and looked.images:
        yield looked.finding(
            "note",
            "folders inside",
            inner,
            "there are images in them that are not used",
            f"Set {at}.include_subdirectories to true to use them.",
            what="folders inside",
            total=len(inner),
        )
    number = len(looked.images)
    shown = images_an_epoch(concept, number) * config.epochs
    if concept.type == "STANDARD" and shown < number:
        spared = looked.images[shown:]
        problem = (
            f"never learned: balancing {concept.balancing:g} in {concept.balancing_strategy} "
            f"shows {shown:,} in the whole run"
        )
        cure = f"Raise {at}.balancing or epochs."
        found = looked.finding("warning", "never learned", spared, problem, cure)
        # which ones is drawn by lot
        yield _without_examples(found)


def drawn_once(looked: Looked) -> Iterator[Finding]:
    """Yield what is called random and is drawn once for every image."""
    concept = looked.concept
    at = f"concepts.{looked.index}"
    if concept.text.enable_tag_shuffling and concept.text_variations == 1:
        problem = "their tags are put into one new order, which stays"
        cure = f"Set {at}.text_variations to 10, for example, to draw ten orders."
        yield _of_all(looked, "tags shuffled once", problem, cure)
    if concept.image.enable_random_flip and concept.image_variations == 1:
        problem = "half of them are mirrored, always the same half"
        cure = f"Set {at}.image_variations to 4, for example, to draw each four times."
        yield _of_all(looked, "mirrored once", problem, cure)


def validation_unlike_config(config: TrainConfig) -> Iterator[Finding]:
    """Yield that validation is on without images, or off with some."""
    kept = [c for c in config.concepts if c.enabled and c.type == "VALIDATION"]
    if kept and not config.validation:
        problem = "validation is off: the VALIDATION concepts are not used"
        cure = "Set validation to true to measure them."
        yield _of_the_config("validation is off", len(kept), problem, cure)
    for index, concept in enumerate(config.concepts):
        if (
            concept.enabled
            and concept.type != "VALIDATION"
            and concept.role != "subject"
        ):
            problem = "their role is without effect: they are trained on, not measured"
            cure = f"Set concepts.{index}.type to VALIDATION, or role to subject."
            yield Finding("note", "role", index, 1, 1, problem, (), cure)
    if config.validation and not kept:
        problem = "validation is on, but no concept is of type VALIDATION: nothing is measured"
        cure = "Set the type of a concept, or validation to false."
        yield _of_the_config("nothing to validate", 0, problem, cure)


def learned_by_two_concepts(used: Sequence[Looked]) -> Iterator[Finding]:
    """Yield which images more than one concept trains on."""
    owners: dict[Path, set[int]] = defaultdict(set)
    for looked in used:
        if looked.concept.type == "STANDARD":
            for path in looked.images:
                owners[path].add(looked.index)
    if len(set().union(*owners.values())) < 2:
        return
    both = {path for path, concepts in owners.items() if len(concepts) > 1}
    for group in alike(list(owners)):
        if len(set().union(*(owners[path] for path in group))) > 1:
            both.update(group)
    if both:
        yield Finding(
            "note",
            "in two concepts",
            None,
            len(both),
            len(owners),
            f"{len(both):,} of {len(owners):,} images: in more than one concept, which each learn them",
            tuple(visible(path.name) for path in sorted(both)[:3]),
            "",
        )


def validated_and_learned(
    learned: Sequence[Path], validated: Mapping[Path, Looked]
) -> Iterator[Finding]:
    """Yield which validation images are trained on, too: their loss tells nothing. ``validated``: by path, whose."""
    known = set(learned)
    both = {path for path in validated if path in known}
    for group in alike([*known, *(path for path in validated if path not in known)]):
        if known.intersection(group):
            both.update(path for path in group if path in validated)
    if both:
        problem = (
            f"{len(both):,} of {len(validated):,} validation images are trained on, too: "
            "their loss shows what was learned by heart"
        )
        examples = tuple(validated[path].shown(path) for path in sorted(both)[:3])
        yield Finding(
            "note",
            "validated and learned",
            None,
            len(both),
            len(validated),
            problem,
            examples,
            "Keep them in one folder only.",
        )


def _of_all(looked: Looked, kind: str, problem: str, cure: str) -> Finding:
    found = looked.finding("note", kind, looked.images, problem, cure)
    return _without_examples(found)


def _without_examples(found: Finding) -> Finding:
    return Finding(**{**vars(found), "examples": ()})


def _of_the_config(kind: str, number: int, problem: str, cure: str) -> Finding:
    return Finding("warning", kind, None, number, number, problem, (), cure)
