# SPDX-License-Identifier: BSD-2-Clause
"""What a hostile or broken peer sends, item by item, and the test of each. Every name here is a test that there is.

Each drives a program under the preload over a real socket and real shared memory from another process, and ends with a peer that
behaves, on the same path. At least one of each item goes on and on on one program, which must not grow (cycles.py): test_again.py does
the wrong messages, answers and rings, test_repeated.py what takes more than a message. test_fuzz.py does anything.
"""
import ast
import importlib
import pathlib

import pytest

from hostile.soak import FILES

MESSAGE, REPLY, RING = "test_messages.ATTACKS", "test_replies.WRONG", "test_rings"
KICK, CALL = "test_inband.KICKS", "test_inband.CALLS"

# The tables whose rows are all done over and over, and by what.
REPEATED = {
    MESSAGE: "test_again.test_messages_again", REPLY: "test_again.test_replies_again", RING + ".BROKEN": "test_again.test_rings_again",
    RING + ".DROPPED": "test_again.test_rings_again", KICK: "test_repeated.test_wrong_messages_in_band",
    CALL: "test_repeated.test_wrong_calls_in_band",
}

# An item: tests as module.function, and rows of their tables as (table, row).
ITEMS = {
    "short, split and coalesced reads": [
        "test_repeated.test_pieces",
        "test_messages.test_messages_in_pieces", "test_messages.test_end_inside_a_header", "test_any.test_message_cut_behind_each_byte",
        "test_replies.test_answers_in_pieces", "test_replies.test_end_inside_an_answer"],
    "a sidecar over descriptors, cut behind each of its 48 bytes": ["test_any.test_sidecar_cut_behind_each_byte",
                                                                    "test_repeated.test_pieces"],
    "size over the maximum": [(MESSAGE, "payload over the maximum"), (MESSAGE, "payload of 2^32-1"), (REPLY, "payload over the maximum")],
    "size not the message's own": [(MESSAGE, "payload too short"), (MESSAGE, "payload too long"), (MESSAGE, "payload where none is"),
                                   (REPLY, "half a number"), (REPLY, "two numbers")],
    "unknown request": [(MESSAGE, "request 0"), (MESSAGE, "request 41"), (MESSAGE, "request 2^32-1"), (REPLY, "request 0")],
    "wrong version": [(MESSAGE, "version 0"), (MESSAGE, "version 2"), (REPLY, "version 0"), (REPLY, "version 3")],
    "REPLY bit set, or not": [(MESSAGE, "a reply"), (REPLY, "no reply flag")],
    "wrong answers to a front-end": ["test_replies.test_wrong_answer", "test_replies.test_unasked", "test_replies.test_strange_answer",
                                     "test_repeated.test_unasked_answers", "test_iotlb.test_more_acknowledgements_than_updates"],
    "0, 1, 9, 253 fds on any message": [
        "test_any.test_descriptors_on_any_message", "test_any.test_descriptors_on_any_answer", (REPLY, "253 descriptors"),
        "test_repeated.test_descriptors_on_any_message", "test_repeated.test_descriptors_on_any_answer"],
    "the no-fd bit with an fd": [(MESSAGE, "no-fd bit with one")],
    "a kick fd that is not an eventfd": [(MESSAGE, "a kick that is a pipe"), (MESSAGE, "a call that is a memfd"),
                                         (MESSAGE, "an error that is a pipe")],
    "a blocking or full call fd": ["test_holes.test_call_that_waits", "test_holes.test_call_that_waits_at_start",
                                   "test_holes.test_kick_that_waits", "test_holes.test_front_end_kick_that_waits",
                                   "test_holes.test_call_that_counts_down", "test_holes.test_call_that_waits_of_one_ring_alone",
                                   "test_repeated.test_calls_that_wait", "test_holes.test_call_of_the_control_side",
                                   "test_errors.test_one_that_is_full"],
    "a kick fd that stays readable": ["test_holes.test_kick_that_counts_down", "test_repeated.test_kicks_that_count_down"],
    "a descriptor whose closing waits for the peer": [
        "test_foreign.test_a_socket_that_lingers", "test_foreign.test_a_file_that_somebody_serves",
        "test_repeated.test_descriptors_that_do_not_close"],
    "one that the kernel closes, as there is no room for it or nobody reads it": [
        "test_foreign.test_one_that_nobody_closes", "test_foreign.test_one_in_the_crowd",
        "test_repeated.test_descriptors_that_nobody_closes", "test_repeated.test_descriptors_in_the_crowd"],
    "0, 9, 2^32-1 regions": [(MESSAGE, "0 regions"), (MESSAGE, "9 regions"), (MESSAGE, "2^32-1 regions")],
    "zero size": [(MESSAGE, "a region of size 0")],
    "gpa, uva or offset + size that wraps": [(MESSAGE, "gpa that wraps"), (MESSAGE, "uva that wraps"), (MESSAGE, "offset that wraps")],
    "overlap of regions": [(MESSAGE, "gpa that overlaps"), (MESSAGE, "uva that overlaps")],
    "a file shorter than its region": [(MESSAGE, "a file too short")],
    "memory that somebody has to be asked for, and more than there are addresses": [
        (MESSAGE, "memory that is a file of no disk"), (MESSAGE, "a file of 64 TiB that holds nothing")],
    "a file truncated later": ["test_holes.test_memory_truncated", "test_holes.test_programs_own_sigbus",
                               "test_sigbus.test_states_of_a_thread", "test_sigbus.test_under_traffic",
                               "test_repeated.test_memory_truncated", "test_repeated.test_states_of_a_thread",
                               "test_holes.test_rings_taken_away"],
    "memory that a peer keeps after it is gone": [
        "test_old_device.test_it_keeps_everything", "test_old_device.test_it_keeps_nothing_from_the_next",
        "test_old_device.test_notes_that_are_cut_off", "test_old_device.test_huge_pages_for_one_set_only",
        "test_repeated.test_old_devices_that_spoil"],
    "duplicate ADD, duplicate REM": [(MESSAGE, "a slot added twice"), (MESSAGE, "a slot removed twice")],
    "a new memory table in the middle of a burst": ["test_rings.test_new_memory_table_in_a_burst",
                                                    "test_changes.test_rings_move_in_a_burst",
                                                    "test_repeated.test_changes_in_a_burst"],
    "ring size 0, 65536, not a power of two": [(MESSAGE, "a ring of 0"), (MESSAGE, "a ring of 65536"), (MESSAGE, "a ring of 255")],
    "ring size changed later": [(MESSAGE, "size changed while running")],
    "a ring across regions": [(MESSAGE, "a ring across regions")],
    "a ring misaligned": [(MESSAGE, "a misaligned table"), (MESSAGE, "a misaligned available ring"), (MESSAGE, "a misaligned used ring")],
    "a ring whose parts overlap": ["test_any.test_parts_that_overlap", "test_repeated.test_parts_that_overlap"],
    "a base beyond the size": [(MESSAGE, "a base of 65536"), "test_packed.test_base_outside_the_ring"],
    "a base changed while running": ["test_changes.test_base_of_a_running_ring", "test_changes.test_bad_base_for_a_running_ring",
                                     "test_repeated.test_changes_in_a_burst"],
    "messages before owner or features": ["test_messages.test_wrong_order_is_harmless", "test_repeated.test_wrong_order"],
    "features never offered": [(MESSAGE, "features never offered"), (MESSAGE, "every feature"),
                               (MESSAGE, "protocol features never offered")],
    "features changed while running": [(MESSAGE, "features changed while running"), "test_replies.test_features_that_change_later"],
    "ENABLE before all": ["test_messages.test_wrong_order_is_harmless", "test_repeated.test_wrong_order"],
    "available index that jumps": [(RING + ".BROKEN", "index jumps past the ring"), (RING + ".BROKEN", "index goes back"),
                                   "test_completions.test_used_index_jumps", "test_packed.test_driver_overruns_its_ring",
                                   "test_repeated.test_broken_completions"],
    "heads out of range": [(RING + ".BROKEN", "head out of range"), (RING + ".BROKEN", "next out of range")],
    "loops, zero-length loops": [(RING + ".BROKEN", "a loop of single bytes"), (RING + ".BROKEN", "a loop of empty descriptors"),
                                 (RING + ".DROPPED", "a loop of two"), "test_packed.test_broken_ring"],
    "chain sums over 2^32": [(RING + ".DROPPED", "a frame of a gigabyte in pieces"), (RING + ".DROPPED", "length of 2^32-1")],
    "indirect abuse": [(RING + ".BROKEN", "a table in a table"), (RING + ".BROKEN", "a table of 17 bytes"),
                       (RING + ".BROKEN", "a table with a loop"), "test_packed.test_flags_in_a_table"],
    "wrong direction": [(RING + ".DROPPED", "a descriptor that is ours to write"), "test_rings.test_broken_receive_buffers",
                        "test_repeated.test_broken_receive_buffers"],
    "header-only chains, and less": [(RING + ".DROPPED", "half a header"), (RING + ".DROPPED", "an empty chain")],
    "descriptors rewritten while they are read": [
        "test_rings.test_descriptors_rewritten_while_read", "test_packed.test_descriptors_rewritten_while_read",
        "test_packed.test_receive_buffer_on_the_ring",
        "test_completions.test_completions_rewritten_while_read", "test_repeated.test_descriptors_rewritten",
        "test_repeated.test_completions_rewritten"],
    "disconnect in mid-burst": ["test_kill.test_front_end_killed_while_it_sends", "test_kill.test_back_end_killed_while_it_sends",
                                "test_reconnect.test_after_a_link"],
    "disconnect before and during negotiation": ["test_reconnect.test_after_a_link", "test_reconnect.test_before_the_first_link",
                                                 "test_repeated.test_gone_during_the_start"],
    "interrupt storms": ["test_rings.test_storm_of_kicks", "test_holes.test_kick_that_waits", "test_repeated.test_storm_of_kicks"],
    "a peer that never reads its replies": [(MESSAGE, "answers never read")],
    "memory of other peers used up": ["test_shares.test_peers_with_all_their_slots", "test_repeated.test_peers_with_all_their_slots"],
    "fd exhaustion": ["test_holes.test_out_of_descriptors", "test_repeated.test_out_of_descriptors"],
    "races on the socket path": ["test_paths.test_path_that_is_something_else", "test_paths.test_path_of_a_listener_that_lives",
                                 "test_paths.test_file_of_a_listener_that_died", "test_repeated.test_who_listens",
                                 "test_repeated.test_strange_things_where_it_connects"],
    "several peers on one listening path": ["test_peers.test_a_crowd_that_comes_and_goes", "test_peers.test_one_too_many",
                                            "test_holes.test_silent_newcomer_gives_way", "test_repeated.test_crowd_on_one_path",
                                            "test_holes.test_newcomer_who_begins_and_stops_gives_way"],
    "a crowd of connections that say nothing": ["test_holes.test_crowd", "test_repeated.test_crowd_on_one_path"],
    "in band: kicks of no ring, of a wrong size, with fds, not agreed on": [
        (KICK, "no such ring"), (KICK, "ring 2^32-1"), (KICK, "no payload"), (KICK, "two of them"), (KICK, "a descriptor"),
        (KICK, "not agreed on"), (KICK, "agreed without a channel"), (KICK, "changed while running"),
        "test_inband.test_kick_before_the_ring", "test_repeated.test_wrong_messages_in_band"],
    "in band: wrong answers to our calls, and none": [
        (KICK, "an answer to nothing"), (KICK, "a call that is refused"), (KICK, "an answer of 16 bytes"), (KICK, "answers and no end"),
        (KICK, "an answer with a descriptor"), "test_inband.test_peers_die_with_messages_on_their_way"],
    "in band: wrong calls and errors to a front-end": [
        (CALL, "no such ring"), (CALL, "ring 2^32-1"), (CALL, "an error of no ring"), (CALL, "an error"), (CALL, "no payload"),
        (CALL, "two payloads"), (CALL, "a descriptor"), (CALL, "more answers than kicks"), (CALL, "a kick that is refused"),
        "test_repeated.test_wrong_calls_in_band"],
    "in band: floods, and acknowledgements that nobody reads": [
        "test_inband.test_flood_of_kicks", "test_inband.test_flood_of_calls",
        "test_inband.test_calls_whose_acknowledgements_nobody_reads", "test_repeated.test_flood_of_kicks_in_band",
        "test_repeated.test_flood_of_calls_in_band"],
    "more translations than are kept": ["test_translations.test_more_translations_than_are_kept",
                                        "test_translations.test_what_is_kept_and_what_is_not",
                                        "test_repeated.test_more_translations_than_are_kept"],
    "nonsense on the back-end's channel": ["test_iotlb.test_nonsense", "test_iotlb.test_bad_headers", "test_iotlb.test_descriptors",
                                           "test_translations.test_garbage_on_the_channel", "test_repeated.test_nonsense_on_the_channel"],
}


def functions(module):
    """The tests of a module."""
    tree = ast.parse((pathlib.Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("item", ITEMS)
def test_item(item):
    assert ITEMS[item]
    for test in ITEMS[item]:
        if isinstance(test, tuple):
            module, table = test[0].split(".")
            assert test[1] in getattr(importlib.import_module(f"hostile.{module}"), table), test
        else:
            module, function = test.split(".")
            assert function in functions(module), test


@pytest.mark.parametrize("item", ITEMS)
def test_item_is_repeated(item):
    """Twenty times in make check, a thousand times in make soak."""
    names = [REPEATED.get(test[0], "") if isinstance(test, tuple) else test for test in ITEMS[item]]
    repeated = [name.split(".") for name in names if name.split(".")[0] + ".py" in FILES]
    assert repeated
    for module, function in repeated:
        assert function in functions(module), function
