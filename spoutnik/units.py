"""Durations and sizes as every command, table and report prints them."""


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
