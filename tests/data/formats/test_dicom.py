from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from diffgen.data.formats.dicom import VL_WHOLE_SLIDE, dicom_series
from diffgen.data.slides import header, open_slide

SHARED = Path(__file__).parents[3] / "../shared/odd/13_unseen_kinds/boxes_0.dcm"


def instance(path: Path, series: str, columns: int, kind: str = "VOLUME", sop: str = VL_WHOLE_SLIDE) -> str:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, "1.2.3"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SeriesInstanceUID = sop, series
    data.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    data.TotalPixelMatrixColumns = columns
    data.save_as(path)
    return str(path)


def test_a_slide_is_a_series_and_its_largest_level_is_opened(tmp_path: Path) -> None:
    small = instance(tmp_path / "a.dcm", "1.2", 500)
    large = instance(tmp_path / "b.dcm", "1.2", 2000)
    other = instance(tmp_path / "c.dcm", "1.3", 100)
    label = instance(tmp_path / "d.dcm", "1.2", 300, "LABEL")
    thumbnail = instance(tmp_path / "e.dcm", "1.2", 300, "THUMBNAIL")
    scan = instance(tmp_path / "f.dcm", "1.4", 300, sop="1.2.840.10008.5.1.4.1.1.2")
    (tmp_path / "g.dcm").write_bytes(b"not one" * 100)
    found = dicom_series([other, small, large, label, thumbnail, scan, str(tmp_path / "g.dcm")])
    assert found.slides == ((large, small), (other,))
    assert found.passed_by == {
        label: "label of a DICOM slide",
        thumbnail: "thumbnail of a DICOM slide",
        scan: "a DICOM file that is no slide",
        str(tmp_path / "g.dcm"): "no readable DICOM file",
    }


@pytest.mark.skipif(not SHARED.exists(), reason="needs the small DICOM slide in ../shared/odd")
def test_openslide_reads_dicom_and_its_scale(tmp_path: Path) -> None:
    data = pydicom.dcmread(SHARED)
    data.save_as(tmp_path / "slide.dcm")
    path = str(tmp_path / "slide.dcm")
    assert dicom_series([path]).slides == ((path,),)
    said = header(path)
    assert (said.format, said.size, said.mpp) == ("DICOM", (16, 16), (0.499, 0.499))
    slide, assumed = open_slide(path)
    assert not assumed
    assert slide.read(0, 0, 16, 16, 0.499).shape == (16, 16, 3)
