"""Numbers of parameters as people write them: 20000, 20k, 1.5M."""

import re

from shared_peft.errors import ConfigError

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_COUNT = re.compile(r"(?P<number>\d[\d_]*(\.\d+)?)(?P<unit>[kmg]?)", re.IGNORECASE)


def parse_count(text: str, where: str) -> int:
    """Return the count a word stands for, rounded to a whole number.

    Args:
        text: digits, perhaps with a decimal point, underscores, and k, M or G behind.
        where: the flag it was given to, for the error message.

    Raises:
        ConfigError: another word, or less than 1.

    Example:
        >>> parse_count("1.5M", "--budget")
        1500000
    """
    found = _COUNT.fullmatch(text.strip())
    count = 0 if found is None else round(float(found["number"]) * _FACTORS[found["unit"].lower()])
    if count < 1:
        raise ConfigError(where, "must be a number of at least 1, such as 20000, 20k or 1.5M", repr(text), "Correct it")
    return count
