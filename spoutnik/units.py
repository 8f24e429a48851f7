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
    for prefix in ("", "k", "M", "G"):
        if bytes < 999.95:
            return f"{bytes:.4g} {prefix}B"
        bytes /= 1000
    return f"{bytes:,.4g} TB"
