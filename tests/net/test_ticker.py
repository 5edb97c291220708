"""A file descriptor that ticks."""

from __future__ import annotations

import select

from opencluster.net.ticker import Ticker


def test_it_ticks_while_it_is_wanted() -> None:
    ticker = Ticker(0.002)
    epoll = select.epoll()
    epoll.register(ticker.fileno(), select.EPOLLIN)
    assert epoll.poll(0.1) == []
    ticker.run(True)
    for _ in range(3):
        assert epoll.poll(20.0)
        ticker.take()
    ticker.run(True)
    assert epoll.poll(20.0)
    ticker.run(False)
    ticker.take()
    assert epoll.poll(0.1) == []
    # nothing to take is no error
    ticker.take()
    ticker.close()
    epoll.close()
