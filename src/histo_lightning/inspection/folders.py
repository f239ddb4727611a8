"""``audit run=``: is every file of a run, sweep, study, evaluation or export what it was when it was written?"""

from pathlib import Path

from histo_lightning.comparison.folders import listed_folders
from histo_lightning.errors import UserError
from histo_lightning.runs import RunFolder, write_json
from histo_lightning.runs.manifest import MANIFEST, damaged, read_manifest


def audit_folders(runs: str, json_file: str | None = None) -> bool:
    """Print a line for each damaged file at or below the folders, and how many were checked; whether all are whole.

    UserError where no folder holds anything to be checked.
    """
    roots = listed_folders(runs)
    folders = sorted(
        {path.parent for root in roots for name in (MANIFEST, "status.json") for path in root.rglob(name)}
    )
    problems, count = list[str](), 0
    for folder in folders:
        try:
            files = read_manifest(folder)
            if not files and RunFolder(folder).state == "finished":
                problems.append(f"{folder / MANIFEST}: is missing; train again writes it, unchecked")
            count += len(files)
            problems += [f"{folder / name}: is damaged ({why})" for name, why in damaged(folder).items()]
        except UserError as error:
            problems.append(str(error))
    if not folders:
        raise UserError(f"run={runs}: holds no {MANIFEST}, so there is nothing to check it against")
    print(
        *problems, f"{count:,} files of {len(folders):,} folders: {len(problems) or 'none'} damaged", sep="\n"
    )
    if json_file:
        write_json(Path(json_file), {"folders": len(folders), "files": count, "damaged": problems})
    return not problems
