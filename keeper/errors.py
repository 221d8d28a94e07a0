"""Exceptions by whose fault it is.

    FlowkeeperError
    ├── LocalError           our bug, or the operator's mistake: stop and say what to do
    │   ├── ConfigError      a file, a flag or the environment
    │   ├── KeyFileError     a key cannot be read, opened or trusted
    │   ├── StoreError       the database is damaged, locked or of another version
    │   └── UnreachableError something this node depends on does not answer
    └── RemoteFault          a peer, a chain or a plug-in broke the rules; names the culprit

Expected outcomes are values (a verdict, a reason), never exceptions.
"""

from keeper.reasons import Reason


class FlowkeeperError(Exception):
    """Anything Flowkeeper raises on purpose."""


class LocalError(FlowkeeperError):
    """Our bug or the operator's mistake: what failed, where, and what to do about it.

    Args:
        what: what failed, with the values, in lower case.
        where: the file, flag, address or process it failed at.
        remedy: what to do next.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"at {self.where}")
        if self.remedy:
            parts.append(self.remedy)
        return "; ".join(parts)


class ConfigError(LocalError):
    """A file, a flag or the environment says something impossible."""


class KeyFileError(LocalError):
    """A key cannot be read, opened or trusted."""


class StoreError(LocalError):
    """The database is damaged, locked, or of another version."""


class UnreachableError(LocalError):
    """Something this node depends on does not answer."""


class RemoteFault(FlowkeeperError):
    """A peer, a chain or a plug-in broke the rules.

    Args:
        culprit: who, as text fit for a log line (a peer id, a member, an endpoint).
        reason: the closed code.
        detail: the values that show it.
    """

    def __init__(self, culprit: str, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{culprit}: {reason.value}{': ' + detail if detail else ''}")
        self.culprit, self.reason, self.detail = culprit, reason, detail
