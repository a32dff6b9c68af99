# SPDX-License-Identifier: BSD-2-Clause
"""DPDK's testpmd, a net_vhost device, on our front-end's memory: huge pages, and their fallback."""
import pytest

from lab.hugepages import free, hugepages
from lab.proc import require
from lab.testpmd import vhost
from interop.port import Echo
from interop.test_testpmd import chain, run_chain


@pytest.mark.parametrize("pages", [0, 6], ids=["none", "huge"])
def test_vhost_on_our_huge_pages(sockdir, sock, pages):
    """Two rings of 1024 buffers of 12352 bytes are 25 MB; with ring=256 they are 4 pages."""
    require("dpdk-testpmd")
    with hugepages(pages):
        with Echo(sock, mode="listen", dialect="virtio", role="frontend", ring=256,
                  env={"PALLADIUM_MEM_ALLOC_TYPE": "hugepages", "PALLADIUM_RX_BUFS": "64",
                       "PALLADIUM_TRACELEVEL": "details"}) as program:
            run_chain(*chain(sockdir, vhost(sock, client=True)), lambda: None)
            assert program.running
            if pages:
                assert free() == pages - 4, program.tail()
                assert "huge pages of 2 MiB hold" in program.text
            else:
                assert "ordinary pages instead of huge ones" in program.text
