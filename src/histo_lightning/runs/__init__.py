"""Run folders: atomic files, status, lock, and which folder a run goes into."""

from histo_lightning.runs.files import quote_cell, unquote_cell, write_atomic, write_csv, write_json
from histo_lightning.runs.folder import RunFolder, choose_folder, versions
from histo_lightning.runs.manifest import read_bytes, read_json

__all__ = [
    "RunFolder", "choose_folder", "quote_cell", "read_bytes", "read_json", "unquote_cell", "versions",
    "write_atomic", "write_csv", "write_json",
]  # fmt: skip
