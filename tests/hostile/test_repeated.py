# SPDX-License-Identifier: BSD-2-Clause
"""Attacks that take more than a message, one a round, on one program: memory that is cut, eventfds that wait, rings and channels that
are wrong in each role or change while they run, no descriptors left, strange things at the path. As in test_again.py, nothing adds up.
"""
import contextlib
import itertools
import os
import resource
import socket

import pytest

from lab.frames import numbered
from lab.inband import InbandBackEnd, InbandFrontEnd
from lab.iommu import Iommu
from lab.ring import PAGE
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd, Memory, Req
from lab.wire import HEADER, REPLY, VERSION, Msg, mem_table, vring_state
from hostile import (test_any, test_completions, test_foreign, test_holes, test_inband, test_iotlb, test_old_device, test_packed,
                     test_peers, test_reconnect, test_replies, test_rings, test_shares, test_sigbus)
from hostile.cycles import Cycles
from hostile.test_again import ENDED, again
from hostile.test_completions import GONE
from hostile.test_holes import kept_full
from hostile.victim import Victim, beside, caught_up, echoes, returns, until

pytestmark = pytest.mark.usefixtures("small_pages")
FORMATS = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
formats = pytest.mark.parametrize("fmt", FORMATS)
SOON = {"PALLADIUM_RECONNECT_MIN_MS": "1", "PALLADIUM_RECONNECT_MAX_MS": "5"}


def in_turn(program, attack, names, serve):
    """again() with one of the attacks a round."""
    names = itertools.cycle(names)
    again(program, lambda _: attack(next(names)), [""], serve)


def start(fe):
    """A new driver on a new connection; what the program owes has come, and what was said is done."""
    fe.new_driver()
    fe.start_like_qemu()
    fe.get_features()
    fe.post_rx([2048] * 32)
    caught_up(fe)


def start_device(be):
    """The same of a device."""
    be.drop()
    be.wait_started()
    be.send(numbered(1 << 20, 60))
    while be.recv().frame != numbered(1 << 20, 60):
        pass


def leave(fe):
    """Hang up, and wait until the program does not use the rings any more."""
    with contextlib.suppress(OSError):
        fe.channel.sock.shutdown(socket.SHUT_WR)
    fe.channel.closed_by_peer()


def whatever(program, attack, serve):
    """An attack of which nobody can say what the program makes of it; returns how many faults it was to the program."""
    before = program.errors()
    with contextlib.suppress(*GONE):
        attack()
    serve()
    return program.errors() - before


# --- to a back-end -----------------------------------------------------------------------------

def test_memory_truncated(sock):
    def peer(memory=None):
        return FrontEnd(sock, listen=False, memory=memory)

    def attack(how):
        with peer(Memory((8 << 20,), seals=0)) as fe:
            start(fe)
            kick = fe.tx.kick_fd
            for n in range(200 if how == "in a burst" else 0):
                fe.send(numbered(n, 1500), publish=False)
            fe.tx.publish()
            os.ftruncate(fe.memory.fds[0], 0)  # from here on nothing may touch it here either
            os.eventfd_write(kick, 1)
            assert fe.channel.closed_by_peer()
            fe.channel.close()
        return 1

    def serve():
        with peer() as fe:
            start(fe)
            echoes(fe)
    with Victim(sock, mode="listen") as program:
        in_turn(program, attack, ["while asleep", "in a burst"], serve)


def serving(fe):
    """serve() of again() with a peer that is used on."""
    def serve():
        start(fe)
        echoes(fe)
    return serve


def serving_next(fe):
    """The same where the rings are the program's until it has seen that the peer is gone."""
    def serve():
        leave(fe)
        serving(fe)()
    return serve


def test_calls_that_wait(sock):
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def attack(ring):
            start(fe)
            with kept_full(fe.queues[ring].call_fd):
                for q in fe.queues:
                    q.suppress_calls(False)
                fe.send(numbered(50, 60))
                assert fe.channel.closed_by_peer()
            for q in fe.queues:
                os.set_blocking(q.call_fd, False)
            return 1
        in_turn(program, attack, [0, 1], serving(fe))


def test_kicks_that_count_down(sock):
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def attack(name):
            start(fe)
            test_holes.count_up(fe, name)
            return 1
        in_turn(program, attack, test_holes.COUNTED, serving(fe))


RECEIVE = {"split": (test_rings, 256), "packed": (test_packed, test_packed.SIZE)}


@formats
def test_broken_receive_buffers(sock, fmt):
    """What the program had to send goes to the next peer."""
    tests, size = RECEIVE[fmt]
    with FrontEnd(sock, listen=False, features=FORMATS[fmt], ring=size) as fe, Victim(sock, mode="listen", format=fmt) as program:
        def attack(name):
            start(fe)
            fe.new_driver()
            fe.start_like_qemu()
            rows = tests.RECEIVE[name]
            tests.chain(fe.rx, rows(fe) if callable(rows) else rows)
            with contextlib.suppress(*ENDED):
                fe.send(numbered(1, 60))
            assert fe.channel.closed_by_peer()
            return 1
        in_turn(program, attack, tests.RECEIVE, serving(fe))


def test_wrong_messages_in_band(sock):
    with InbandFrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen", inband="on") as program:
        def attack(name):
            fe.answering = True
            start(fe)
            with contextlib.suppress(*ENDED):
                test_inband.KICKS[name][0](fe)
            assert fe.channel.closed_by_peer()
            fe.answering = True
            return 1
        in_turn(program, attack, test_inband.KICKS, serving(fe))


@formats
def test_parts_that_overlap(sock, fmt):
    with FrontEnd(sock, listen=False, features=FORMATS[fmt]) as fe, Victim(sock, mode="listen", format=fmt) as program:
        def lie(name):
            fe.new_driver()
            fe.start_like_qemu()
            test_any.overlap(fe, name)
            fe.post_rx([2048] * 8)
            for n in range(20):
                fe.send(numbered(n, 60))
            fe.recv(timeout=0.02)

        def attack(name):
            return whatever(program, lambda: lie(name), serving_next(fe))
        in_turn(program, attack, test_any.OVERLAPS, serving(fe))


@formats
def test_descriptors_rewritten(sock, fmt):
    tests, size = RECEIVE[fmt]
    with FrontEnd(sock, listen=False, features=FORMATS[fmt], ring=size) as fe, Victim(sock, mode="listen", format=fmt) as program:
        def lie():
            with beside(tests.rewrite(fe)):
                for _ in range(4):
                    for i in range(64 if fmt == "split" else 0):
                        fe.tx.add_raw(i)
                    fe.tx.publish()
                    fe.tx.kick()
                    fe.get_features()

        start(fe)
        in_turn(program, lambda _: whatever(program, lie, serving_next(fe)), [""], serving(fe))


def test_changes_in_a_burst(sock):
    """Bases, rings and memory said again while frames are under way: they move as if nothing had been said, unless it was nonsense."""
    def say(fe, what):
        if what == "memory":
            fe.channel.send(Req.SET_MEM_TABLE, mem_table([r.row() for r in fe.memory.regions]), fe.memory.fds)
            return
        for i in range(2):
            if what == "rings":
                fe.ring_message(Req.SET_VRING_ADDR, i)
            else:
                fe.channel.send(Req.SET_VRING_BASE, vring_state(i, what))

    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def attack(what):
            start(fe)
            if what in (65536, 0xffffffff):
                with contextlib.suppress(*ENDED):
                    say(fe, what)
                assert fe.channel.closed_by_peer()
                return 1
            for n in range(16):
                fe.send(numbered(n, 60), publish=False)
            fe.tx.publish()
            say(fe, what)
            for n in range(16):
                assert fe.recv().frame == numbered(n, 60)
            fe.wait_sent()  # the rings are written to again
            return 0
        in_turn(program, attack, [0, 65536, 1, 255, "memory", 256, 0xffffffff, 65535, "rings"], serving(fe))


def test_wrong_order(sock):
    """Each order of what a start says, the features last or not: nothing runs until everything is there, and then it does."""
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        steps = {
            "enable": lambda: fe.each_ring(Req.SET_VRING_ENABLE),
            "rings": lambda: fe.each_ring(Req.SET_VRING_KICK, Req.SET_VRING_CALL, Req.SET_VRING_ADDR, Req.SET_VRING_BASE,
                                          Req.SET_VRING_NUM),
            "memory": fe.send_memory,
            "features": fe.set_features,
        }

        def attack(order):
            fe.new_driver()
            fe.connect()
            fe.protocol = 0
            fe.get_features()
            for step in order:
                steps[step]()
            fe.post_rx([2048] * 32)
            echoes(fe)
            return 0
        in_turn(program, attack, itertools.permutations(steps), serving(fe))


def test_pieces(sock):
    """A message that ends inside its header and one that comes in two pieces; a sidecar over two descriptors, and over three."""
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        payload = mem_table([r.row() for r in fe.memory.regions])
        whole = HEADER.pack(Req.SET_MEM_TABLE, VERSION, len(payload)) + payload + HEADER.pack(Req.GET_FEATURES, VERSION, 0)

        def attack(n):
            fe.drop()
            fe.connect()
            fe.channel.send_raw(whole[:n % 12])
            leave(fe)
            start(fe)
            fe.channel.send_raw(whole[:n], fe.memory.fds)
            fe.channel.send_raw(whole[n:])
            assert fe.channel.recv().req == Req.GET_FEATURES
            for cut in ([n], [n, 48 - n + 5]):
                fe.send(numbered(n, 60), split=cut)
                assert fe.recv().frame == numbered(n, 60)
            return 0
        in_turn(program, attack, range(1, 48), serving(fe))


def test_descriptors_on_any_message(sock):
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def lie(req):
            for count in (0, 1, 9, 253):
                test_any.with_descriptors(fe, req, count)

        def attack(req):
            return whatever(program, lambda: lie(req), serving(fe))
        in_turn(program, attack, range(test_any.REQUESTS), serving(fe))


def test_descriptors_on_any_answer(sock):
    with BackEnd(sock, listen=True, protocol=test_any.EVERYTHING) as be, Victim(sock, role="frontend", env=SOON) as program:
        asked = test_any.answers_of(be)

        def attack(req):
            test_any.with_answered_descriptors(be, req, 9)
            return 3
        in_turn(program, attack, asked, serving_device(be))


def lingering_in_turn(sock, sends):
    """A socket that lingers, sent by each of these."""
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def attack(send):
            start(fe)
            with test_foreign.attack_lingering(fe, program, send):
                return 1
        in_turn(program, attack, sends, serving(fe))


def test_descriptors_that_do_not_close(sock):
    lingering_in_turn(sock, test_foreign.MESSAGES.values())


def test_descriptors_that_nobody_closes(sock):
    lingering_in_turn(sock, [send for send, _ in test_foreign.PLACES.values()])


def test_descriptors_in_the_crowd(sock):
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def attack(_):
            start(fe)
            with test_foreign.in_the_crowd(sock):
                echoes(fe)
                leave(fe)  # and who waits is the next
            return 1
        in_turn(program, attack, [""], serving(fe))


def test_storm_of_kicks(sock):
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def attack(_):
            start(fe)
            with beside(test_rings.storm(fe)):
                echoes(fe)
            return 0
        in_turn(program, attack, [""], serving(fe))


@contextlib.contextmanager
def no_descriptors(program):
    """The program gets none any more: it has the first three. (With a limit of less the kernel would not let it poll two, either.)"""
    limit = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (3, limit[1]))
    yield
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, limit)


def test_out_of_descriptors(sock):
    """None for the connection, for the memory, or for the eventfds."""
    with FrontEnd(sock) as fe, Victim(sock, env=SOON) as program:
        def tried(seen):
            with contextlib.suppress(*ENDED):
                fe.connect(0.01)  # one that was there before the descriptors went
            fe.drop()
            return tries(program) > seen + 1

        def attack(what):
            fe.new_driver()
            if what == "the connection":
                with no_descriptors(program):
                    seen = tries(program)
                    until(lambda: tried(seen), "tries")
                return 0
            fe.connect_like_qemu()
            if what == "the eventfds":
                fe.set_features()
                fe.send_memory()
                fe.get_features()
            with no_descriptors(program), contextlib.suppress(*ENDED):
                if what == "the memory":
                    fe.send_memory()
                else:
                    fe.each_ring(Req.SET_VRING_KICK)
                assert fe.channel.closed_by_peer()
            return 1
        in_turn(program, attack, ["the connection", "the memory", "the eventfds"], serving(fe))


def test_states_of_a_thread(sockdir):
    """Memory is cut while the program's thread is in each state that matters to SIGBUS (faults.c)."""
    modes = itertools.cycle(test_sigbus.MODES)
    with test_sigbus.running(sockdir, next(modes), RECONNECT_MIN_MS="1", RECONNECT_MAX_MS="5") as (program, (first,)):
        first.close()
        program.write("go\n")
        program.expect("^alive$")

        @contextlib.contextmanager
        def peer():
            with FrontEnd(str(sockdir / "s0"), memory=Memory((8 << 20,), seals=0)) as fe:
                start(fe)
                yield fe

        def attack(mode):
            with peer() as fe:
                program.write(f"{mode}\n")
                program.expect("^ready$")
                test_sigbus.cut(fe)
                program.write("go\n")
                program.expect("^alive$")
                assert fe.channel.closed_by_peer()
                fe.channel.close()
            return 1

        def serve():
            with peer() as fe:
                test_sigbus.echoed(fe, 1)
        in_turn(program, attack, test_sigbus.MODES, serve)
        program.kill()  # it may not hear of anything less


def test_flood_of_kicks_in_band(sock):
    with InbandFrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen", inband="on") as program:
        def attack(ack):
            start(fe)
            for n in range(500):
                fe.kick(n % 2, need_reply=ack)
            echoes(fe)
            return 0
        in_turn(program, attack, [True, False], serving(fe))


def test_more_translations_than_are_kept(sock):
    with FrontEnd(sock, features=BASIC | F.ACCESS_PLATFORM, listen=False) as fe, Victim(sock, mode="listen", iommu="on") as program:
        def serve(count=0):
            fe.new_driver()
            with Iommu(fe, PAGE) as iommu:
                fe.start_like_qemu()
                fe.post_rx([2048] * 32)
                for n in range(count):
                    iommu.update((1 << 40) + 2 * n * PAGE, PAGE, fe.memory.regions[0].uva + n % 1000 * PAGE)
                iommu.invalidate(0, 96 << 20)
                echoes(fe)

        def attack(_):
            serve(2500)
            return 0
        in_turn(program, attack, [""], serve)


# --- to a front-end ----------------------------------------------------------------------------

def serving_device(be):
    """serve() of again() with a device that is used on."""
    def serve():
        start_device(be)
        returns(be)
    return serve


@formats
def test_broken_completions(sock, fmt):
    with BackEnd(sock, features=FORMATS[fmt]) as be, Victim(sock, mode="listen", role="frontend", ring=64, format=fmt) as program:
        def attack(name):
            start_device(be)
            with contextlib.suppress(*GONE):
                test_completions.BROKEN[name][0](be)
                for n in range(200):
                    be.send(numbered(n, 60), timeout=1)
                    be.recv(timeout=1)
            assert be.channel.closed_by_peer()
            return 1
        in_turn(program, attack, test_completions.BROKEN, serving_device(be))


@formats
def test_completions_rewritten(sock, fmt):
    with BackEnd(sock, features=FORMATS[fmt]) as be, Victim(sock, mode="listen", role="frontend", ring=64, format=fmt) as program:
        def lie():
            with beside(test_completions.rewrite(be)):
                for n in range(20):
                    be.send(numbered(n, 60), timeout=0.02)
                    be.recv(timeout=0.02)

        def attack(_):
            start_device(be)
            return whatever(program, lie, serving_device(be))
        in_turn(program, attack, [""], serving_device(be))


@formats
def test_old_devices_that_spoil(sock, fmt):
    with test_old_device.device(sock, fmt) as be, Victim(sock, mode="listen", role="frontend", ring=64, format=fmt) as program:
        def attack(_):
            start_device(be)
            test_old_device.takes(be, range(5))
            old = be.leave()
            be.wait_started()
            old.spoil()
            test_old_device.gets(be, range(5))
            returns(be)
            assert old.is_as_spoilt()
            old.close()
            be.drop()
            be.forget()
            return 0
        again(program, attack, [""], serving_device(be))


def test_unasked_answers(sock):
    with BackEnd(sock) as be, Victim(sock, mode="listen", role="frontend") as program:
        def attack(name):
            start_device(be)
            with contextlib.suppress(*ENDED):
                test_replies.UNASKED[name][0](be, Msg(Req.GET_FEATURES, VERSION | REPLY, b"", []))
            assert be.channel.closed_by_peer()
            return 1
        in_turn(program, attack, test_replies.UNASKED, serving_device(be))


def test_wrong_calls_in_band(sock):
    with InbandBackEnd(sock, features=BASIC | F.MQ) as be, Victim(sock, mode="listen", role="frontend", inband="on") as program:
        def attack(name):
            start_device(be)
            with contextlib.suppress(*ENDED):
                test_inband.CALLS[name][0](be)
            assert be.channel.closed_by_peer()
            be.refuse = {}
            return 1
        in_turn(program, attack, test_inband.CALLS, serving_device(be))


def test_flood_of_calls_in_band(sock):
    with InbandBackEnd(sock, features=BASIC | F.MQ) as be, Victim(sock, mode="listen", role="frontend", inband="on") as program:
        def attack(_):
            start_device(be)
            for n in range(500):
                be.ask.send(test_inband.CALL, vring_state(n % 2, 0))
            returns(be)
            return 0
        in_turn(program, attack, [""], serving_device(be))


def test_nonsense_on_the_channel(sock):
    with test_iotlb.asking(sock) as be, Victim(sock, role="frontend", iommu="on", env=SOON) as program:
        def attack(name):
            req, payload, _ = test_iotlb.NONSENSE[name]
            start_device(be)
            with contextlib.closing(test_iotlb.channel(be)) as ask:
                ask.send(req, payload)
                assert be.channel.closed_by_peer()
            return 1

        def serve():
            serving_device(be)()
            os.close(be.backend_fd)
            be.backend_fd = None
        in_turn(program, attack, test_iotlb.NONSENSE, serve)


# --- the path ----------------------------------------------------------------------------------

@pytest.mark.parametrize("role", test_reconnect.ROLES)
def test_gone_during_the_start(sock, role):
    """After each of the first messages, one more a round."""
    with test_reconnect.ROLES[role](sock, listen=False) as peer, Victim(sock, role=role, mode="listen") as program:
        def serve():
            test_reconnect.start(peer)

        def attack(stop):
            test_reconnect.start(peer, stop)
            serve()
            return 0
        serve()
        in_turn(program, attack, range(test_reconnect.messages(peer)[0]), serve)


def test_crowd_on_one_path(sock):
    with test_peers.program(sock) as p, test_peers.peers(sock, 5) as them:
        run = Cycles(p.pid)
        for n in run:
            test_peers.comes(them, n)
        assert p.running
        run.note()


def test_peers_with_all_their_slots(sock):
    """One of those that have all of theirs comes anew, and then one that has few."""
    with test_shares.crowd(sock) as (p, greedy, take):
        run = Cycles(p.pid)
        for n in run:
            fe = greedy[n % len(greedy)]
            test_shares.start(fe)
            assert take(fe)
            with test_shares.peer(sock) as other:
                test_shares.echoes(other, n)
            test_shares.echoes(fe, n)
        run.note()


@contextlib.contextmanager
def something_at(path, what):
    """A file, a folder, or a socket of another kind, for a while."""
    with contextlib.ExitStack() as stack:
        if what == "file":
            with open(path, "x", encoding="ascii"):
                pass
        elif what == "folder":
            os.mkdir(path)
        else:
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(path)
        yield
        (os.rmdir if what == "folder" else os.unlink)(path)


THINGS = ["file", "folder", "datagram socket"]


def tries(program):
    return program.port()["counters"]["connect_errors"]


def test_strange_things_where_it_connects(sock):
    with Victim(sock, env=SOON) as program:
        def attack(what):
            with something_at(sock, what):
                seen = tries(program)
                until(lambda: tries(program) >= seen + 2, "tries")  # the second began after the first look
            serve()
            return 0

        def serve():
            with FrontEnd(sock) as fe:
                start(fe)
                echoes(fe)
        serve()
        in_turn(program, attack, THINGS, serve)


def test_who_listens(sockdir, sock):
    """Each begins while something is where it is to listen, which is left alone: a file, a folder, another socket, or the program before
    it, which serves on. It has the path when that is gone, even if it was killed and could not take its socket along."""
    run, what = Cycles(), itertools.cycle([*THINGS, "listener", "dead listener"])
    for _ in run:
        thing = next(what)
        with contextlib.ExitStack() as stack:
            before = None
            if "listener" in thing:
                before = stack.enter_context(Victim(sock, mode="listen", env=SOON))
                until(lambda: os.path.exists(sock), "the path")
                if thing == "dead listener":
                    before.kill()
                    assert os.path.exists(sock)
            there = contextlib.nullcontext() if before else something_at(sock, thing)
            program = stack.enter_context(_beside(sock, there, thing))
            if thing == "listener":
                with FrontEnd(sock, listen=False) as fe:
                    start(fe)
                    before.terminate()
                    assert before.wait() == 0
            until(lambda: _port(program) == ("waiting", "its peer has not come yet"), "the path to be its own")
            with FrontEnd(sock, listen=False) as fe:
                start(fe)
                echoes(fe)
            assert program.running and program.errors() == 0
        with contextlib.suppress(FileNotFoundError):
            os.unlink(sock)
        assert not os.listdir(sockdir)
    run.note()


def _port(program):
    """State of its port, and the reason for it."""
    port = program.port()
    return port["state"], port["reason"]


@contextlib.contextmanager
def _beside(sock, there, thing):
    """A program that was refused the path, unless a dead one has it."""
    with contextlib.ExitStack() as stack:
        with there:
            program = stack.enter_context(Victim(sock, mode="listen", env=SOON))
            if thing != "dead listener":
                until(lambda: "cannot listen" in program.port()["last_error"], "the refusal")
        yield program
