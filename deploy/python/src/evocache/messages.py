"""Schedules, layouts and grids as messages of `evocache.v1`, and back. Messages come from outside: what they say is
checked by the types that they become."""

from __future__ import annotations

from .errors import ScheduleError
from .formats import Grid
from .layout import BlockGroup, Component, Layout
from .schedule import Schedule
from .v1 import types_pb2 as pb


def layout_message(layout: Layout) -> pb.Layout:
    groups = [
        pb.BlockGroup(
            name=group.name,
            count=group.count,
            components=[pb.Component(name=c.name, feeds=c.feeds) for c in group.components],
        )
        for group in layout.groups
    ]
    return pb.Layout(groups=groups)


def layout_from(message: pb.Layout) -> Layout:
    groups = []
    for group in message.groups:
        components = tuple(Component(c.name, c.feeds if c.HasField("feeds") else None) for c in group.components)
        groups.append(BlockGroup(group.name, group.count, components))
    return Layout(tuple(groups))


def schedule_message(schedule: Schedule) -> pb.Schedule:
    return pb.Schedule(steps=schedule.steps, decisions=schedule.packed, schedule_id=schedule.id)


def schedule_from(message: pb.Schedule, layout: Layout) -> Schedule:
    if message.guidance:
        raise ScheduleError(
            "the schedule leaves out passes of the guidance, which this package cannot run; "
            "search without allow_guidance_decisions"
        )
    schedule = Schedule.from_packed(layout, message.steps, message.decisions)
    if message.schedule_id and message.schedule_id != schedule.id:
        raise ScheduleError(f"the schedule has the id {schedule.id}, its message says {message.schedule_id}")
    return schedule


def grid_message(grid: Grid) -> pb.Grid:
    return pb.Grid(steps=grid.steps, solver_order=grid.solver_order, timesteps=grid.timesteps, sigmas=grid.sigmas)


def grid_from(sampling: pb.Sampling, steps: int) -> Grid | None:
    """How runs of this step count sample."""
    for grid in sampling.grids:
        if grid.steps == steps:
            order = grid.solver_order if grid.HasField("solver_order") else None
            return Grid(steps, order, tuple(grid.timesteps), tuple(grid.sigmas))
    return None
