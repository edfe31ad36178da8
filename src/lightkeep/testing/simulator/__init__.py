"""A facility in virtual time on media that fail, driven by one seeded scheduler.

    with World(folder, seed=1) as world:
        world.run(1000)             # raises Violation, with the seed and the history that led to it

Everything above the seams is the product: verbs, catalogue, policy. Below them are `FaultyStore` on media with
a volatile and a durable layer, a clock that only the scheduler moves, ids that count, and a mailer that keeps what
it is given. The oracle shares no code with the purge decision: it knows which bytes were acknowledged, looks for
them on the media themselves, and knows what harm the scheduler has done.
"""

from lightkeep.testing.simulator.oracle import Violation
from lightkeep.testing.simulator.world import World

__all__ = ["Violation", "World"]
