"""Whose turn it is to compute: a lock that goes from visitor to visitor, and an end for what nobody waits for."""

import collections
import contextlib
import contextvars
import dataclasses
import threading
from collections.abc import Hashable, Iterator


class GivenUp(Exception):
    """Nobody waits any more for what is being computed."""


@dataclasses.dataclass
class Request:
    """For whom this thread works. given_up: whether the browser has gone"""

    visitor: Hashable
    given_up: bool = False


_request = contextvars.ContextVar("request", default=None)


@contextlib.contextmanager
def working_on(request: Request) -> Iterator[None]:
    """Inside, in this thread or task and those it starts with its context, `Turns` count as that request's."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


class Turns:
    """A lock that one thread at a time holds; a thread may take it again while it does.

    Of the visitors who wait, the one whose last turn is longest ago is next, with the oldest of its requests, however
    many others have. A thread without a request is a visitor of its own.
    """

    def __init__(self) -> None:
        self._state = threading.Lock()
        self._holder, self._visitor, self._depth, self._images = None, None, 0, 0
        self._waiting: dict[Hashable, collections.deque] = {}  # visitor → (thread, event), next first

    def __enter__(self) -> None:
        """Waits for the turn. GivenUp if the browser has gone by then"""
        if self._is_mine():
            self._depth += 1
            return
        self._wait()
        if self._is_given_up():
            self.__exit__()
            raise GivenUp

    def __exit__(self, *_: object) -> None:
        """Gives the turn to the next"""
        self._depth -= 1
        if not self._depth:
            self._pass_on()

    def breathe(self) -> None:
        """Lets those in who wait, one of each other visitor at most. GivenUp if the browser has gone"""
        if not self._is_mine():
            return
        if self._is_given_up():
            raise GivenUp
        if self._waiting:
            depth, self._depth = self._depth, 1
            self.__exit__()
            self._wait()
            self._depth = depth
            if self._is_given_up():
                raise GivenUp

    def next_image(self) -> bool:
        """Whether an image has been made in this turn already, so that it is time to `breathe` before the next."""
        if not self._is_mine():
            return False
        self._images += 1
        return self._images > 1 and (bool(self._waiting) or self._is_given_up())

    def _is_mine(self):
        return self._holder == threading.get_ident()

    @staticmethod
    def _is_given_up():
        request = _request.get()
        return request is not None and request.given_up

    def _wait(self):
        thread, request = threading.get_ident(), _request.get()
        visitor, ready = thread if request is None else request.visitor, threading.Event()
        with self._state:
            self._waiting.setdefault(visitor, collections.deque()).append((thread, ready))
            if self._holder is None:
                self._hand_over()
        ready.wait()

    def _pass_on(self):
        with self._state:
            self._holder = None
            if self._visitor in self._waiting:  # who had this turn comes after all others
                self._waiting[self._visitor] = self._waiting.pop(self._visitor)
            if self._waiting:
                self._hand_over()

    def _hand_over(self):
        """The turn goes to the first visitor; call it with the state locked"""
        visitor = next(iter(self._waiting))
        queue = self._waiting[visitor]
        thread, ready = queue.popleft()
        if not queue:
            del self._waiting[visitor]
        self._holder, self._visitor, self._depth, self._images = thread, visitor, 1, 0
        ready.set()
