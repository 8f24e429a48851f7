"""Items of late responses, to which clients refer (`item_reference`) instead of sending them again."""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_BYTES = 16 << 20  # of all items together; beyond, the oldest are forgotten
SECONDS = 3600.0


@dataclass(frozen=True)
class KeptItem:
    """owner: the name of the API key it was made for; None where there are no keys."""

    item: dict
    owner: str | None
    size: int
    time: float


class RecentItems:
    """Items by their ids: in memory alone, for SECONDS at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.size = clock, 0
        self._items: OrderedDict[str, KeptItem] = OrderedDict()

    def add(self, items: list[dict], owner: str | None) -> None:
        for item in items:
            kept = KeptItem(item, owner, len(json.dumps(item)), self.clock())
            self._items[item["id"]] = kept
            self.size += kept.size
        while self._items and (self.size > MAX_BYTES or self._oldest.time < self.clock() - SECONDS):
            self.size -= self._items.popitem(last=False)[1].size

    def find(self, id: str, owner: str | None) -> dict | None:
        kept = self._items.get(id)
        if kept is None or kept.owner != owner or kept.time < self.clock() - SECONDS:
            return None
        return kept.item

    @property
    def _oldest(self) -> KeptItem:
        return next(iter(self._items.values()))
