# SPDX-License-Identifier: BSD-2-Clause
"""Eventfds that stand in an epoll of the peer's, which it holds (lab/held.py). The program has the last copy of them; nobody waits."""
import os

import pytest

from lab import held
from lab.backend import BackEnd
from lab.vhostpeer import FrontEnd, Req
from lab.wire import NO_FD, u64
from hostile.victim import Victim, echoes, next_driver_is_served, returns, serves

pytestmark = pytest.mark.skipif(held.missing() is not None, reason=str(held.missing()))

RING = 1  # that the program receives from: it sleeps on its kick
# Where the driver has it, of those that it uses itself.
EVENTFDS = {Req.SET_VRING_KICK: "kick_fd", Req.SET_VRING_CALL: "call_fd", Req.SET_VRING_ERR: None}


def another(fe, req):
    """Another takes its place, if the driver has one."""
    if EVENTFDS[req]:
        fe.ring_message(req, RING)
    else:
        fe.channel.send(req, u64(RING | NO_FD))


def stopped(fe, _):
    """The ring stops."""
    fe.get_base(RING)


ENDS = {"another": another, "the ring stops": stopped, "nobody is left": lambda fe, req: fe.new_driver()}


def alone_with_one(epoll, fe, req):
    """Program and driver have used an eventfd of which the program has the last copy now, and the epoll that it stands in is held."""
    fd, own = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), EVENTFDS[req]
    epoll.add(fd)
    fe.channel.send(req, u64(RING), [fd])
    before = own and getattr(fe.queues[RING], own)
    if own:
        setattr(fe.queues[RING], own, fd)
    echoes(fe)
    if own:
        setattr(fe.queues[RING], own, before)
    epoll.hold()
    os.close(fd)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("req", EVENTFDS, ids=lambda r: r.name)
def test_eventfd(sock, req, end):
    with FrontEnd(sock) as fe, Victim(sock) as program, held.Held() as epoll:
        serves(fe)
        fds = program.fds()
        alone_with_one(epoll, fe, req)
        ENDS[end](fe, req)
        if end == "another":
            fe.get_features()
            echoes(fe)
        next_driver_is_served(fe, program, fds)


def test_eventfds_of_a_front_end(sock):
    """Those that the program made, and gave to a back-end."""
    with BackEnd(sock, listen=True) as be, Victim(sock, role="frontend") as program, held.Held() as epoll:
        be.wait_started()
        returns(be)
        fds = program.fds()
        for ring in be.rings.values():
            epoll.add(ring.kick)
            epoll.add(ring.call)
        epoll.hold()
        be.drop()
        be.wait_started()
        returns(be)
        program.settled(fds)
        assert program.running
