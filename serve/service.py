"""What the endpoints of one replica share."""

from dataclasses import dataclass, field

from serve.access import Access
from serve.batching import Batcher
from serve.limits import Gate, Limits
from serve.observability import Meters
from serve.voices import Voices


@dataclass
class Service:
    """One replica.

    Attributes:
        voices: the models that speak.
        limits: of what a client may take.
        access: who may ask.
        unlabelled: whether a request may switch the visible label off.
        meters: count what happens.
        gate: lets requests in.
        batcher: makes the frames of all of them.
    """

    voices: Voices
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    unlabelled: bool = False
    meters: Meters = field(default_factory=Meters)
    gate: Gate = field(init=False)
    batcher: Batcher = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.limits)
        self.batcher = Batcher(self.meters)
