"""Reading a scheduler's configuration strictly: every key is understood, or refused by name."""

from __future__ import annotations

from collections.abc import Iterable

from latentc.errors import BundleError, TargetError, nearest
from latentc.runtime.manifest import Json, SchedulerEntry


class SchedulerConfig:
    """Typed access to diffusers' config values; a missing key has diffusers' own default.

    Args:
        entry: the scheduler of a manifest.

    Attributes:
        name: diffusers' class name, for messages.
    """

    def __init__(self, entry: SchedulerEntry) -> None:
        self.name = entry.name
        self._values = entry.config
        self._read: set[str] = set()

    def number(self, key: str, default: float) -> float:
        """The value of ``key`` as a float; raises BundleError when it is none."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._mistyped(key, value, "a number")
        return float(value)

    def integer(self, key: str, default: int) -> int:
        """The value of ``key`` as an int; raises BundleError when it is none."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._mistyped(key, value, "a whole number")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """The value of ``key`` as a bool; raises BundleError when it is none. null counts as false."""
        value = self._take(key, default)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self._mistyped(key, value, "true or false")
        return value

    def choice(self, key: str, default: str, offered: Iterable[str]) -> str:
        """The value of ``key``, one of ``offered``; raises TargetError for any other."""
        value = self._take(key, default)
        choices = tuple(offered)
        if not isinstance(value, str) or value not in choices:
            raise TargetError(
                self._where(key),
                f"this scheduler does not implement {value!r}",
                nearest(str(value), choices),
            )
        return value

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """The value of ``key`` as numbers, None when absent or null; raises BundleError otherwise."""
        value = self._take(key, None)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._mistyped(key, value, "a list of numbers")
        numbers: list[float] = []
        for item in value:
            if isinstance(item, bool) or not isinstance(item, (int, float)):
                raise self._mistyped(key, item, "a list of numbers")
            numbers.append(float(item))
        return tuple(numbers)

    def only(self, key: str, *neutral: Json) -> None:
        """Accept ``key`` with one of the values that change nothing; raises TargetError for any other."""
        if key not in self._values:
            return
        value = self._take(key, None)
        if not any(value is item or (type(value) is type(item) and value == item) for item in neutral):
            offered = " or ".join(repr(item) for item in neutral)
            raise TargetError(
                self._where(key),
                f"this scheduler does not implement {value!r}",
                f"build the bundle with {key}: {offered}, or with another scheduler",
            )

    def without_meaning(self, *keys: str) -> None:
        """Accept ``keys`` whatever they hold: with the values read so far nothing looks at them."""
        self._read.update(keys)

    def finish(self) -> None:
        """Raise BundleError when the configuration has a key that nothing read."""
        unread = sorted(set(self._values) - self._read)
        if unread:
            key = unread[0]
            raise BundleError(
                self._where(key),
                f"the key is unknown (value {self._values[key]!r})",
                nearest(key, self._read),
            )

    def _take(self, key: str, default: Json) -> Json:
        self._read.add(key)
        return self._values.get(key, default)

    def _where(self, key: str) -> str:
        return f"manifest.json: scheduler.config.{key} ({self.name})"

    def _mistyped(self, key: str, value: Json, wanted: str) -> BundleError:
        return BundleError(self._where(key), f"is {value!r}, wanted {wanted}", "build the bundle again")
