"""The one loop of a replica that makes the frames of all its streams together."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np

from s2vgan.errors import S2VError
from s2vgan.spec import GroupSpec
from s2vgan.synthesis import Stream, advance
from serve.observability import Meters

AHEAD = 3  # batches of frames that may wait for a client, before its stream has to
FILE_GROUPS = 10  # of a file that are made at a time, when nobody speaks live


class Session:
    """A stream among the others of a replica; made by :meth:`Batcher.open`.

    Args:
        batcher: that makes its frames.
        stream: of the model.
        live: whether somebody speaks at this moment, and waits for each group.
    """

    def __init__(self, batcher: "Batcher", stream: Stream, live: bool) -> None:
        self.stream, self.live = stream, live
        self._batcher = batcher
        self._heard: deque[np.ndarray] = deque()  # not yet fed to the stream
        self._made: deque[np.ndarray] = deque()
        self._ended = self._finished = False
        self._complete = False  # the stream has been fed to its end
        self._failure: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def spec(self) -> GroupSpec:
        """Of the groups that it makes."""
        return self.stream.face.spec

    @property
    def over(self) -> bool:
        """Whether all frames are made and taken: those that :meth:`frames` gave last were last."""
        return self._finished and not self._made

    def feed(self, samples: np.ndarray) -> None:
        """Take (n,) float32 samples in [-1, 1], n of any size."""
        self._heard.append(samples)
        self._batcher.wake()

    def end(self) -> None:
        """No speech follows."""
        self._ended = True
        self._batcher.wake()

    async def frames(self) -> AsyncIterator[np.ndarray]:
        """Frames (k * T, S, S, 3) uint8 as they are made, k of 1 or more groups, to the end.

        Raises:
            SourceError: if the speech is none.
            RuntimeError: if the model failed.
        """
        while True:
            while self._made:
                made = self._made.popleft()
                self._batcher.wake()
                yield made
            if isinstance(self._failure, S2VError):
                raise self._failure
            if self._failure is not None:
                raise RuntimeError("the model failed on a batch") from self._failure
            if self._finished:
                return
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """Leave; what is not made yet is not made any more."""
        self._batcher.leave(self)

    def prepare(self) -> bool:
        """Feed the stream; whether it has a group to be made, and somebody to take it.

        The stream copies what it holds with each piece: what it does not need yet is kept back.
        """
        while self._heard and not self.stream.ready:
            self.stream.feed(self._heard.popleft())
        self._complete = self._ended and not self._heard
        if self._complete:
            self.stream.end()
        return self.stream.ready > 0 and len(self._made) < AHEAD

    def settle(self, made: np.ndarray | None = None, failure: Exception | None = None) -> None:
        """Take what was made, and see whether it was the last."""
        some = made is not None and len(made) > 0
        if made is not None and some:
            self._made.append(made)
        self._failure = failure
        self._finished = self._complete and not self.stream.ready
        if some or failure is not None or self._finished:  # each message of speech comes by here
            self._changed.set()


class Batcher:
    """Makes the frames of all streams of a replica, those of one model in shared forwards.

    It lives on the event loop; the forwards run on one thread of their own. A stream whose client
    does not take its frames is left out until it does. Its task exists only while there is a
    stream.

    Args:
        meters: count groups and batches.
    """

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._sessions: list[Session] = []
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "forward")

    def open(self, stream: Stream, live: bool = False) -> Session:
        """A session for a stream; close it when done."""
        session = Session(self, stream, live)
        self._sessions.append(session)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return session

    def leave(self, session: Session) -> None:
        """Forget a session; a second time changes nothing."""
        if session in self._sessions:
            self._sessions.remove(session)
        self.wake()

    def wake(self) -> None:
        """There may be something to do."""
        self._work.set()

    async def _run(self) -> None:
        while self._sessions:
            self._work.clear()
            ready = [session for session in list(self._sessions) if self._prepared(session)]
            for session in self._sessions:  # one whose end has come does not wait for the others
                if session not in ready:
                    session.settle()
            faces = {id(session.stream.face): session.stream.face for session in ready}
            for face in faces.values():
                await self._advance([one for one in ready if one.stream.face is face])
            if not ready:
                await self._work.wait()
        self._task = None

    def _prepared(self, session: Session) -> bool:
        try:
            return session.prepare()
        except S2VError as error:  # of this client's speech alone
            session.settle(failure=error)
            self.leave(session)
            return False

    async def _advance(self, sessions: Sequence[Session]) -> None:
        live = any(session.live for session in self._sessions)
        began = perf_counter()
        try:
            made = await asyncio.get_running_loop().run_in_executor(
                self._thread, advance, [one.stream for one in sessions], 1 if live else FILE_GROUPS
            )
        except Exception as error:  # told to each of them; the others go on
            for session in sessions:
                session.settle(failure=error)
                self.leave(session)
            return
        groups = 0
        for session, frames in zip(sessions, made, strict=True):
            groups += len(frames) // session.spec.frames_per_group
            session.settle(frames)
        self._meters.batch(len(sessions), groups, perf_counter() - began)
