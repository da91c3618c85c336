"""Verdicts in words for who reads nothing but the first page: what one may do with the data, and what not.

The words follow from a section and its level alone, and promise no more than the level does.
"""

from collections.abc import Mapping

from diffgen.evaluation.page import Level, Verdict

WORDS: Mapping[str, Mapping[Level, str]] = {
    "fidelity": {
        "good": "The images look like real tissue, and show as much of its variety.",
        "fair": "The images resemble real tissue, but not in all respects, or not in all its variety.",
        "poor": "The images differ from real tissue, or show only a part of its variety.",
        "unknown": "There is too little to compare to say how much the images are like real tissue.",
    },
    "privacy": {
        "good": "No image was found to be a copy of a training image. This is no proof that none is.",
        "fair": "No image is a copy for certain, but not all searches could tell: look at the pairs.",
        "poor": "Images are copies of training images, or too near to them: do not pass this data on.",
        "unknown": "It could not be told whether training images were copied: treat this data as real.",
    },
    "labels": {
        "good": "The label maps have classes in amounts and shapes as real ones have.",
        "fair": "The label maps are near to real ones, with differences in amounts or shapes.",
        "poor": "The label maps differ from real ones in amounts or shapes.",
        "unknown": "It could not be told whether the label maps are like real ones.",
    },
    "large": {
        "good": "Large images hold together: no seams, structure and stain as in real ones.",
        "fair": "Large images hold together with differences from real ones in seams, structure or stain.",
        "poor": "Large images have seams, or structure that does not hold together over distance.",
        "unknown": "It could not be told whether large images hold together.",
    },
    "downstream": {
        "good": "A network that learned from these images does as well as one that saw real ones.",
        "fair": "A network that learned from these images does less well than one that saw real ones.",
        "poor": "A network that learned from these images does far worse than one that saw real ones.",
        "unknown": "It could not be told whether networks learn from these images.",
    },
}  # fmt: skip


def plain(topic: str, verdict: Verdict | None) -> str:
    """The sentence for a section's verdict; empty where there is none."""
    return "" if verdict is None else WORDS.get(topic, {}).get(verdict.level, "")
