"""Slides in DICOM: of the many files of one slide, which to open."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

VL_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
TAGS = ["SOPClassUID", "ImageType", "SeriesInstanceUID", "TotalPixelMatrixColumns"]
BESIDE = {"LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER"}


@dataclass(frozen=True)
class DicomSlides:
    """What DICOM files are of."""

    slides: tuple[tuple[str, ...], ...]
    """The files of each slide; its largest level first, which is the one to open."""
    passed_by: dict[str, str]
    """File → why it is no slide: a label, an overview or a thumbnail; no DICOM of a slide."""


def dicom_series(files: Iterable[str]) -> DicomSlides:
    """Group files by their SeriesInstanceUID; in the order of the files' names.

    A DICOM slide is a file per level, and OpenSlide opens all of it by any of them: as sources of their own
    they would be one tissue several times, on both sides of the split.
    """
    series: dict[str, list[tuple[int, str]]] = {}
    passed: dict[str, str] = {}
    for file in sorted(files):
        said = _header(file)
        if isinstance(said, str):
            passed[file] = said
        else:
            series.setdefault(str(said.SeriesInstanceUID), []).append(
                (-int(said.get("TotalPixelMatrixColumns", 0)), file)
            )
    groups = (tuple(file for _, file in sorted(found)) for found in series.values())
    return DicomSlides(tuple(sorted(groups)), passed)


def _header(file: str) -> Any:
    """The tags of a level of a slide, or why it is none."""
    import pydicom  # late: only where there is DICOM

    try:
        said = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
        if said.get("SOPClassUID") != VL_WHOLE_SLIDE or "SeriesInstanceUID" not in said:
            return "a DICOM file that is no slide"
        kinds = BESIDE & {str(kind).upper() for kind in said.get("ImageType") or ()}
        return f"{min(kinds).lower()} of a DICOM slide" if kinds else said
    except (pydicom.errors.InvalidDicomError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return "no readable DICOM file"
