"""Sizes in words, the same wherever a user meets one."""

_MIB = 2**20
_GIB = 2**30


def size_text(size: int) -> str:
    """Return a number of bytes for a reader: ``24.5 GiB``, below one GiB ``650.3 MiB``.

    Memory, files, disks and downloads alike: what is compared is in one unit.
    """
    mebibytes = round(size / _MIB, 1)
    if mebibytes < 1024:
        return f"{mebibytes:,.1f} MiB"
    return f"{size / _GIB:,.1f} GiB"


def share_text(part: int, whole: int) -> str:
    """Return a part of a number of bytes: ``16.4 of 24.5 GiB``, in the unit of the whole."""
    text = size_text(whole)
    if size_text(part).endswith(text[-3:]):
        return f"{size_text(part)[:-4]} of {text}"
    return f"{size_text(part)} of {text}"
