"""What can go wrong between us and the broker, told apart by what the caller should do next."""

from __future__ import annotations


class BusError(Exception):
    """Publishing or consuming failed; the message says what to do next."""


class Unavailable(BusError):
    """The broker could not be reached or did not answer in time: try again later, under the same id."""


class Full(BusError):
    """This tenant's queue for this command is full: slow down, then try again. Nobody else is affected."""


class Refused(BusError):
    """The broker will never take this message as it is: do not try again, change it."""


class TopologyError(Exception):
    """The streams on the server cannot be brought to what the topology page says."""
