"""The one exception that people are meant to see, and the line about any other."""

import re

# Names and words of errors: torch's, oneDNN's, threading's, the linker's, ONNX's. Compiled while there is memory for it.
WORDS = "MemoryError|allocate memory|out of memory|not create a primitive|bad_alloc|can't start new thread"
NO_MEMORY = re.compile(f"{WORDS}|failed to map segment|failed to serialize proto", re.IGNORECASE)


def escaped(text: str) -> str:
    """A text from outside, safe to print: control characters, and bytes of a file name that are no text, are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and how to mend it, in one line.

    Front doors print it on stderr and leave with exit status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(escaped(" ".join(str(message).split())))


def error_line(error: BaseException) -> str:
    """One line about an error; what a disk, a permission or a lack of memory caused anywhere is no ``defect: ...``."""
    text = escaped(" ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2]))
    cause: BaseException | None = error
    while cause is not None and not NO_MEMORY.search(f"{type(cause).__name__} {cause}"):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        what = " ".join(str(cause).split())[:200] or type(cause).__name__
        mend = "use a smaller batch_size or image_size, or fewer processes"
        return f"not enough memory ({escaped(what)}); {mend}"
    if isinstance(error, UserError):
        return text
    if isinstance(error, RuntimeError) and "home directory" in text:  # pathlib's
        return "no home folder is known for ~; write the path in full, or set HOME"
    if isinstance(error, RecursionError):
        return f"nested too deeply ({text}); flatten the folders, lists or brackets that were given"
    cause = error
    while cause is not None:
        if isinstance(cause, OSError) or type(cause).__module__ == "sqlite3":
            file, reason = getattr(cause, "filename", None), getattr(cause, "strerror", None) or cause
            where = f"{file!s:.200}: " if file else ""
            return escaped(f"{where}{reason}; free space or mend the path, the same command goes on")
        cause = cause.__cause__
    return f"defect: {type(error).__name__}: {text}"
