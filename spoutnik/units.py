"""Durations and sizes as every command, table and report prints and reads them."""

import re

_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def duration(seconds: float) -> str:
    """4.2 s, 42 s, 7 min 05 s, 3 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(bytes: float) -> str:
    """Bytes in decimal units with four digits: 166.2 MB, 11.51 GB."""
    return f"{short(bytes)}B"


def short(number: float) -> str:
    """A number with a decimal prefix and four digits: 70272 as "70.27 k"."""
    for prefix in ("", "k", "M", "G"):
        if number < 999.95:
            return f"{number:.4g} {prefix}"
        number /= 1000
    return f"{number:,.4g} T"


def parse_size(text: str) -> int | None:
    """Bytes of "16GB" (powers of ten), "512MiB" (of two) or a number; None where it is no size, or less than a byte."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([KMGT]I?)?B?\s*", text.upper())
    return match and int(float(match[1]) * _FACTORS[match[2] or ""]) or None
