"""The one exception that people are meant to see."""


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and how to mend it, in one line.

    Front doors print it on stderr and leave with exit status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))
