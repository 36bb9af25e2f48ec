"""The families of objects by name: how each is built, and how far it is turned from the front, in degrees."""

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from ss4d.stages.data.families import (
    ball,
    bird,
    butterfly,
    crawler,
    fish,
    flower,
    folding,
    pendulum,
    quadruped,
    sea,
    snake,
    spinner,
    tree,
    vehicle,
    walker,
)
from ss4d.stages.data.mesh import Doubles, Part


@dataclass(frozen=True)
class Family:
    """One kind of object.

    Attributes:
        build: from a generator and the frames' times (t,) in seconds to the object's parts, facing +y, z up.
        heading: degrees by which every object of the family is turned left or right of the front. Long animals and
            vehicles say little when seen head-on. One fixed angle, so that a picture still tells how the object stands.
    """

    build: Callable[[Generator, Doubles], list[Part]]
    heading: float = 0.0


FAMILIES: dict[str, Family] = {
    "ball": Family(ball.build),
    "bird": Family(bird.build),
    "butterfly": Family(butterfly.build),
    "crawler": Family(crawler.build, heading=25.0),
    "fish": Family(fish.build, heading=60.0),
    "flower": Family(flower.build),
    "folding": Family(folding.build),
    "jellyfish": Family(sea.jellyfish),
    "octopus": Family(sea.octopus),
    "pendulum": Family(pendulum.build),
    "quadruped": Family(quadruped.build, heading=35.0),
    "snake": Family(snake.build, heading=40.0),
    "spinner": Family(spinner.build),
    "tree": Family(tree.build),
    "vehicle": Family(vehicle.build, heading=40.0),
    "walker": Family(walker.build),
}
