"""Seeds and layers as a user writes them."""

import re

LARGEST_SEED = 2**32 - 1  # of numpy


def parse_numbers(text: str, most: int = 10**6) -> list[int]:
    """`1,5,7`, `1 5 7` or `10-20` (both ends included) as a list of numbers below 2³². ValueError for anything else,
    and for more than `most` numbers."""
    numbers = []
    for part in re.split(r"\s*,\s*|\s+", re.sub(r"\s*-\s*", "-", text.strip())):
        match = re.fullmatch(r"(\d{1,40})(?:-(\d{1,40}))?", part)
        if match is None:
            raise ValueError(f"{part[:30]!r} is no number or range; write 1,5,7 or 10-20")
        first, last = int(match[1]), int(match[2] or match[1])
        if max(first, last) > LARGEST_SEED:
            raise ValueError(f"{part} is too large; numbers end at {LARGEST_SEED}")
        if last < first:
            raise ValueError(f"{part} runs backwards; write {last}-{first}")
        if len(numbers) + last - first >= most:
            raise ValueError(f"with {part} there are more than {most} numbers")
        numbers += range(first, last + 1)
    return numbers
