"""Run folders: atomic files, status, lock, and which folder a run goes into."""

from histo_lightning.runs.files import read_json, write_atomic, write_json
from histo_lightning.runs.folder import RunFolder, choose_folder, versions

__all__ = ["RunFolder", "choose_folder", "read_json", "versions", "write_atomic", "write_json"]
