"""What each script of the ledger promises to do to Redis, said once more in Python over plain dictionaries.

Written from the scripts' headers and the ledger's promise, not from their text; it shares no code with the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KEEP = 16 * 86_400_000
FOREVER = -1

Place = tuple[str, str, int, int, int, int, str]
"""Key, unit, amount, step, length, keep, share."""
Take = tuple[str, str, int, int, int, str]
"""Key, unit, amount, slot, keep, share."""
Used = tuple[int, int, int, int]
"""Cost, requests, tokens in, tokens out."""


@dataclass
class Kept:
    """All that is in one shard.  `lasts`: how long a key that was written will stay, in ms."""

    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    holds: dict[str, tuple[str, str, list[Take]]] = field(default_factory=dict)  # state, draft, takes
    due: dict[str, int] = field(default_factory=dict)
    outbox: list[str] = field(default_factory=list)
    epoch: str | None = None
    lasts: dict[str, int] = field(default_factory=dict)

    # The verbs, named and answering as the scripts do

    def reserve(
        self,
        now: int,
        start: int,
        end: int,
        ttl: int,
        id_: str,
        places: list[Place],
        checks: list[tuple[int, int, int]],
        draft: str,
        server: str,
    ) -> list[int]:
        if server != "-" and (self.epoch is None or self.epoch[0] == "!" or not self.epoch.startswith(server)):
            return [4, now]
        if id_ in self.holds:
            return [3, now]
        if not start <= now < end:
            return [1, now]
        for number, (index, limit, amount) in enumerate(checks, 1):
            place = places[index - 1]
            spent, reserved = self.sums(place, now)
            if 0 <= limit < spent + reserved + amount:
                return [2, now, number, spent, reserved, self.wait(place, spent + reserved + amount - limit, now)]
        answer, takes = [0, now], []
        for place in places:
            spent, reserved = self.sums(place, now)
            self.forget(place, now)
            takes.append(taken(place, now))
            self.add(takes[-1], 0, place[2], now)
            answer += [spent, reserved + place[2]]
        self.open(id_, draft, takes, now + ttl)
        return answer

    def extend(self, now: int, ttl: int, id_: str) -> int:
        if self.state(id_) != "O":
            return 0
        self.due[id_] = max(self.due.get(id_, 0), now + ttl)
        return 1

    def settle(self, now: int, id_: str, used: Used, kept: int, record: str, shares: dict[str, Used] | None) -> str:
        state = self.state(id_)
        if state in ("", "R"):
            return "unknown"
        if state == "S":
            return "again"
        for take in self.holds[id_][2]:
            spent = share(take, used, shares)
            if state == "O":
                self.add(take, spent, -take[2], now)
            else:
                self.add(take, spent - presumed(take), 0, now)
        self.close(id_, "S", kept)
        self.append(record)
        return "settled" if state == "O" else "late"

    def book_unknown(
        self,
        now: int,
        id_: str,
        used: Used,
        kept: int,
        takes: list[Take],
        record: str,
        shares: dict[str, Used] | None,
        server: str,
    ) -> str:
        if server != "-" and self.epoch is None:
            return "blank"
        if self.state(id_) not in ("", "R"):
            return "again"
        for take in takes:
            self.add(take, share(take, used, shares), 0, now)
        self.holds[id_], self.lasts[id_] = ("S", "", []), kept
        self.append(record)
        return "unknown"

    def release(self, now: int, id_: str, kept: int) -> int:
        state = self.state(id_)
        if state in ("P", "S"):
            return 0
        if state == "O":
            for take in self.holds[id_][2]:
                self.add(take, 0, -take[2], now)
        self.close(id_, "R", kept)
        return 1

    def expire(self, now: int, most: int, kept: int) -> int:
        due = sorted((at, id_) for id_, at in self.due.items() if at <= now)[:most]
        for _, id_ in due:
            del self.due[id_]
            if self.state(id_) == "O":
                _, draft, takes = self.holds[id_]
                for take in takes:
                    self.add(take, presumed(take), -take[2], now)
                self.holds[id_], self.lasts[id_] = ("P", draft, takes), kept
                self.append(draft)
        return len(due)

    def balances(self, now: int, start: int, end: int, places: list[Place]) -> list[int]:
        if not start <= now < end:
            return [1, now]
        return [0, now, *(amount for place in places for amount in self.sums(place, now))]

    def adopt(self, now: int, ttl: int, id_: str, takes: list[Take], draft: str) -> int:
        if id_ in self.holds:
            return 0
        for take in takes:
            self.add(take, 0, take[2], now)
        self.open(id_, draft, takes, now + ttl)
        return 1

    def restore(self, now: int, takes: list[Take], ids: list[str], kept: int) -> int:
        for take in takes:
            known = self.counters.get(take[0], {}).get(f"s{take[3] or ''}", 0)
            if take[2] > known:
                self.add(take, take[2] - known, 0, now)
        for id_ in ids:
            if id_ not in self.holds:
                self.holds[id_], self.lasts[id_] = ("S", "", []), kept
        return 1

    def admit(self, now: int, server: str, token: str) -> int:
        if self.epoch is None:
            return 0
        if self.epoch[0] == "!" or not self.epoch.startswith(server):
            self.epoch = f"{server}:{token}"
        return 1

    # What they are made of

    def state(self, id_: str) -> str:
        return self.holds[id_][0] if id_ in self.holds else ""

    def open(self, id_: str, draft: str, takes: list[Take], deadline: int) -> None:
        self.holds[id_], self.due[id_], self.lasts[id_] = ("O", draft, takes), deadline, FOREVER

    def close(self, id_: str, state: str, kept: int) -> None:
        self.due.pop(id_, None)
        self.holds[id_], self.lasts[id_] = (state, "", []), kept

    def append(self, record: str) -> None:
        if record:
            self.outbox.append(record)

    def sums(self, place: Place, now: int) -> tuple[int, int]:
        totals = {"s": 0, "r": 0}
        for name, amount in self.counters.get(place[0], {}).items():
            if not place[3] or int(name[1:]) >= (now - place[4]) // place[3]:
                totals[name[0]] += amount
        return totals["s"], totals["r"]

    def wait(self, place: Place, excess: int, now: int) -> int:
        """How long until so much has left; -1 where it leaves all at once."""
        _, _, _, step, length, *_ = place
        if not step:
            return -1
        slots: dict[int, int] = {}
        for name, amount in self.counters.get(place[0], {}).items():
            if int(name[1:]) >= (now - length) // step:
                slots[int(name[1:])] = slots.get(int(name[1:]), 0) + amount
        for slot in sorted(slots):
            excess -= slots[slot]
            if excess <= 0:
                return (slot + 1) * step + length - now
        return length

    def forget(self, place: Place, now: int) -> None:
        """Slots that have left the window go when something is set aside."""
        if place[3]:
            first = (now - place[4]) // place[3]
            fields = self.counters.get(place[0], {})
            self.counters[place[0]] = {name: amount for name, amount in fields.items() if int(name[1:]) >= first}
            self.tidy(place[0])

    def add(self, take: Take, spent: int, reserved: int, now: int) -> None:
        key, _, _, slot, keep, _ = take
        fields = self.counters.setdefault(key, {})
        for kind, amount in (("s", spent), ("r", reserved)):
            name = f"{kind}{slot or ''}"
            if amount:
                fields[name] = fields.get(name, 0) + amount
                if fields[name] <= 0:
                    del fields[name]
        if slot:
            self.lasts[key] = max(keep - now, 0) + KEEP
        elif keep:
            self.lasts[key] = max(keep - now, KEEP)
        self.tidy(key)

    def tidy(self, key: str) -> None:
        if not self.counters.get(key):
            self.counters.pop(key, None)
            self.lasts.pop(key, None)


def taken(place: Place, now: int) -> Take:
    key, unit, amount, step, length, keep, part = place
    if not step:
        return key, unit, amount, 0, keep, part
    slot = now // step
    return key, unit, amount, slot, (slot + 1) * step + length, part


def presumed(take: Take) -> int:
    return 0 if take[1] == "concurrent" else take[2]


def share(take: Take, used: Used, shares: dict[str, Used] | None) -> int:
    """What of the request's use the take is charged with."""
    whole = used if shares is None or not take[5] else shares.get(take[5], (0, 0, 0, 0))
    cost, requests, read, written = whole
    counted = {"cost": cost, "requests": requests, "input_tokens": read, "output_tokens": written}
    return {**counted, "tokens": read + written}.get(take[1], 0)
