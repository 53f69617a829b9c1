"""What became of each file of a folder: used, left out or refused, counted by reason, with an example of each."""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from advdiff_jax.data.file_kinds import shown
from advdiff_jax.data.listing import Entry, Listing

log = logging.getLogger(__name__)

HEADS = ("files", "number", "what", "example")
MOST = 12  # rows of one kind


class Inventory:
    """Sorts the files of a listing by the findings about them.

    Args:
        found: the listing.
        findings: name of each entry -> its finding, see `check.check_all`.

    Attributes:
        used: entries of good images, in the order of the listing.
        left_out: reason -> names.
        refused: reason -> names.
        notes: note -> names of used images that it is true of.
    """

    def __init__(self, found: Listing, findings: Mapping[str, dict[str, Any]]):
        self.used: list[Entry] = []
        self.left_out = defaultdict(list, {reason: list(names) for reason, names in found.left_out.items()})
        self.refused = defaultdict(list, {reason: list(names) for reason, names in found.refused.items()})
        self.notes: dict[str, list[str]] = defaultdict(list)
        for entry in found.entries:
            finding = findings[entry.name]
            if "left" in finding:
                self.left_out[finding["left"]].append(entry.name)
            elif "bad" in finding:
                self.refused[finding["bad"]].append(entry.name)
            else:
                self.used.append(entry)
                for note in finding.get("notes", ()):
                    self.notes[note].append(entry.name)
        if found.doubles:
            self.notes["links to files that are used under another name too"] = found.doubles

    def count_left_out(self) -> int:
        return sum(map(len, self.left_out.values()))

    def count_refused(self) -> int:
        return sum(map(len, self.refused.values()))

    def count_looked_at(self) -> int:
        return len(self.used) + self.count_refused()

    def named_refused(self, count: int = 5) -> str:
        """Names the first refused files, with the reasons."""
        named = sorted((name, reason) for reason, names in self.refused.items() for name in names)
        first = ", ".join(f"{shown(name)} ({reason})" for name, reason in named[:count])
        return first + (f" and {len(named) - count} more" if len(named) > count else "")

    def table(self) -> list[tuple[str, str, str, str]]:
        """Returns the rows of the table, heads first; rows of notes count images that the first row counts too."""
        rows = [("used", f"{len(self.used):,}", "images", shown(self.used[0].name) if self.used else "")]
        for kind, reasons in (("of these", self.notes), ("left out", self.left_out), ("refused", self.refused)):
            grouped = sorted(_grouped(reasons).items(), key=lambda item: (-len(item[1]), item[0]))
            rows += [(kind, f"{len(names):,}", reason, shown(names[0])) for reason, names in grouped[:MOST]]
            if rest := [name for _, names in grouped[MOST:] for name in names]:
                rows.append((kind, f"{len(rest):,}", "other reasons", shown(rest[0])))
        return [HEADS, *rows]

    def log(self, where: str) -> None:
        """Logs the table; as a warning if something is left out or refused."""
        is_all = not self.left_out and not self.refused
        lines = [f"  {kind:<9} {number:>7}  {what}: {example}" for kind, number, what, example in self.table()[1:]]
        log.log(
            logging.INFO if is_all else logging.WARNING,
            "%s: %d images used, %d files left out, %d refused\n%s",
            *(where, len(self.used), self.count_left_out(), self.count_refused(), "\n".join(lines)),
        )


def _grouped(reasons):
    """Joins reasons that differ in numbers and details only: a thousand truncated files are one row."""
    groups = defaultdict(dict)
    for reason, names in reasons.items():
        groups[re.sub(r"\d+", "#", reason.partition(" (")[0])][reason] = names
    return {
        next(iter(parts)) if len(parts) == 1 else general: [name for names in parts.values() for name in names]
        for general, parts in groups.items()
    }
