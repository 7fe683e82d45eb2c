"""What one task runs, as a file that costs nothing to read: ``launch/<task>`` in the run directory.

Strings, each ended by NUL, in the order of ``TaskFile``'s fields, then the variables. A rank's
wrapper (``rank.py``, ``rank.c``) reads it before anything else can start; ``launch.json`` says the
same, and all the rest, to people.
"""

from __future__ import annotations

import os
from typing import Dict, List, NamedTuple

__all__ = ["TaskFile"]


class TaskFile(NamedTuple):
    """A task.

    Attributes:
        journal: where the task reports its start and end.
        log: takes its stdout and stderr.
        cwd: where it starts.
        min_life_s: its wrapper ends no sooner after its start.
        rank, local_rank, world_size: what it is, unless Open MPI's variables say otherwise.
        literal: so many of the first words are taken as they are; in the others ``$NAME`` and
            ``${NAME}`` stand for the task's variables.
        words: the command.
        variables: added to what the node gives.
    """

    journal: str
    log: str
    cwd: str
    min_life_s: float
    rank: int
    local_rank: int
    world_size: int
    literal: int
    words: List[str]
    variables: Dict[str, str]

    def encode(self) -> bytes:
        """The content of the file.

        Raises:
            ValueError: some text holds a NUL, which no argument or variable can.
        """
        plain = [str(value) for value in self[:8]]
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        texts = [*plain, str(len(self.words)), *self.words, *variables]
        for text in texts:
            if "\0" in text:
                raise ValueError(f"{text!r} holds a NUL character")
        return b"".join(os.fsencode(text) + b"\0" for text in texts)

    @classmethod
    def decode(cls, content: bytes) -> TaskFile:
        """The task whose ``encode`` gave ``content``."""
        texts = [os.fsdecode(text) for text in content.split(b"\0")[:-1]]
        journal, log, cwd, min_life = texts[:4]
        rank, local_rank, world_size, literal, count = (int(text) for text in texts[4:9])
        words = texts[9 : 9 + count]
        variables = dict(text.split("=", 1) for text in texts[9 + count :])
        return cls(
            journal,
            log,
            cwd,
            float(min_life),
            rank,
            local_rank,
            world_size,
            literal,
            words,
            variables,
        )
