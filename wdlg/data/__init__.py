"""Where private images come from: the catalogue, embedded images, sample files, official downloads."""

from wdlg.data.catalogue import CATALOGUE, EMBEDDED, FETCHED, PAPER, DataSet
from wdlg.data.fetch import fetch
from wdlg.data.images import read_image, write_image
from wdlg.data.samples import Sample, data_dir, is_present, load, read_sample, write_sample

__all__ = [
    "CATALOGUE",
    "EMBEDDED",
    "FETCHED",
    "PAPER",
    "DataSet",
    "Sample",
    "data_dir",
    "fetch",
    "is_present",
    "load",
    "read_image",
    "read_sample",
    "write_image",
    "write_sample",
]
